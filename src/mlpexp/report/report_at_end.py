"""`report=true`: writes the report at the end of a sweep. An error here leaves the results of the sweep complete."""

from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from mlpexp.runtime import shell_commands
from mlpexp.runtime.terminal import say

_written: set[Path] = set()


def write_report(directory: Path) -> None:
    """Write the report of the sweep in `directory`, and print where it is or why there is none."""
    _written.add(directory)
    short_path = shell_commands.short_path(directory)
    try:
        from mlpexp.report.build_report import build  # matplotlib: late, most sweeps make no report

        report = build([short_path])
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        say(
            f"the report could not be made ({reason}); results.csv and the runs are complete, "
            f"and {shell_commands.script('report.py', str(short_path))} tries again",
            error=True,
        )
        return
    say(f"\n{report.sweeps[0][1][0]}\nThe report: {report.page}")


class ReportAtEnd(Callback):
    """Writes the report for sweepers that launch runs in portions, since no launch knows whether it is the last."""

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        directory = Path(str(config.hydra.sweep.dir)).absolute()
        if is_requested(config) and directory not in _written:
            write_report(directory)


def is_requested(config: DictConfig) -> bool:
    return OmegaConf.select(config, "report") is True and OmegaConf.select(config, "dry_run") is not True
