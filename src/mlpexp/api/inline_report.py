"""A report in a notebook: the page in a frame, as it is on the disk."""

from dataclasses import dataclass
from html import escape
from pathlib import Path

from mlpexp.runtime.errors import writing


@dataclass(frozen=True)
class InlineReport:
    """A report that has been written.

    Attributes:
        page: `index.html`, which opens offline.
        sentences: the answer in words.
    """

    page: Path
    sentences: list[str]
    height: int = 640
    """of the frame, in pixels"""

    @classmethod
    def write(cls, directory: Path) -> "InlineReport":
        """Write the report of a run or of a sweep into its directory."""
        from mlpexp.report.build_report import build  # matplotlib: late

        with writing():
            written = build([directory])
        return cls(written.page, written.sweeps[0][1])

    def __str__(self) -> str:
        return "\n".join([*self.sentences, str(self.page)])

    def __repr__(self) -> str:
        return f"InlineReport({str(self.page)!r})"

    def _repr_html_(self) -> str:
        content = escape(self.page.read_text(encoding="utf-8"), quote=True)
        return (
            f'<iframe srcdoc="{content}" sandbox="" width="100%" height="{self.height}" '
            'style="border: 1px solid #ccc"></iframe>'
        )
