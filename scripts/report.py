"""The report of one or more sweeps, or of single runs: one page, with every figure and table beside it."""

import argparse
import math
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import require_environment  # noqa: F401

from mlpexp.cli import argument_parsers, exit_codes
from mlpexp.runtime.shell_commands import plain
from mlpexp.runtime.terminal import say, wrapped

REFRESH_S = 15  # how often a browser loads a watched page again


def main() -> None:
    args = _parser().parse_args()

    from mlpexp.report.build_report import build  # matplotlib: late, so that --help stays instant

    make = partial(
        build,
        args.directories,
        out=args.out,
        metric=args.metric,
        by=args.by,
        margin=args.margin,
        diverged=args.diverged,
    )
    _show(_watched(args.directories, partial(make, refresh_s=REFRESH_S)) if args.watch else make())


def _watched(directories: Sequence[Path], make: Callable[[], Any]) -> Any:
    """The last report of a sweep in training, or the one so far where Ctrl-C ends the watching."""
    from mlpexp.report.watch import watch
    from mlpexp.store import sweep_activity

    report = None
    try:
        for report in watch(directories, make):
            counts = "; ".join(report.counts)
            say(f"{datetime.now():%H:%M:%S}  {counts}; {report.sweeps[0][1][0]} ({report.page})")
        for directory, missing in report.incomplete.items() if report else ():
            if directory in directories:  # no run alone
                say(sweep_activity.stopped_sentence(directory, missing))
    except KeyboardInterrupt:
        if report is None:
            raise
    return report


def _show(report: Any) -> None:
    for title, sentences in report.sweeps:
        say(*([title] if len(report.sweeps) > 1 else []), *(wrapped(sentence, "  ") for sentence in sentences))
    say(f"\nfigures (PNG, SVG): {report.num_figures}, tables (CSV): {report.num_tables}, beside the page. Open it:")
    say(f"  {report.page}")


def _parser() -> argparse.ArgumentParser:
    parser = argument_parsers.parser(__doc__, f"{plain('report.py')} multirun/NAME")
    parser.add_argument(
        "directories", nargs="+", type=Path, metavar="DIR", help="a sweep's directory, e.g. multirun/NAME, or a run's"
    )
    parser.add_argument("--out", type=Path, help="where to write; by default DIR/report of the first DIR")
    parser.add_argument("--metric", help="what is shown, such as acc or rmse (default: accuracy, of values RMSE)")
    parser.add_argument("--by", help="what the best is chosen by, such as val/loss (default: what the runs monitored)")
    parser.add_argument(
        "--margin",
        type=_margin,
        metavar="M",
        help="differences of the metric below it do not matter (default: 0.005 of accuracy, none for a loss)",
    )
    parser.add_argument(
        "--diverged",
        choices=("last", "worst"),
        default="last",
        help="rank configurations with a diverged run after those without, or count such a run with the worst value of "
        "the sweep (default: last)",
    )
    parser.add_argument("--watch", action="store_true", help="make the report again while a process trains the sweep")
    return parser


def _margin(text: str) -> float:
    try:
        margin = float(text)
    except ValueError:
        margin = math.nan
    if not 0 < margin < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no positive number, e.g. 0.005")
    return margin


if __name__ == "__main__":
    exit_codes.run(main)
