"""What `mlpexp.run` and `mlpexp.sweep` with `dry_run=True` return."""

from html import escape
from pathlib import Path

from mlpexp.api.tables import Records
from mlpexp.sweep.jobs import DryRun


class Plan:
    """What would be trained; everything has been checked, and nothing trained or written.

    Attributes:
        directory: of the sweep or of the run.
        table: one record for each run: `run`, `name`, `status` (`new`, that of a run that is done, or how an earlier
            command left it), the swept keys, the number of its `stack`, or why it trains `alone`. Empty for a search,
            whose runs are not known beforehand.
        lines: what the command line prints.
    """

    def __init__(self, dry_run: DryRun) -> None:
        self.directory: Path = dry_run.directory
        self.lines: list[str] = dry_run.lines
        self.table = Records(dry_run.records)

    def __len__(self) -> int:
        return len(self.table)

    def __str__(self) -> str:
        return "\n".join(self.lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        lines = "".join(f"<div>{escape(line)}</div>" for line in self.lines)
        return lines + (self.table._repr_html_() if self.table else "")
