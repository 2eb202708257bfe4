"""Housekeeping of a sweep: list its runs, show what it holds, remove runs, move runs into one table and back."""

import argparse
import sys
from pathlib import Path

import require_environment  # noqa: F401

from mlpexp.cli import argument_parsers, exit_codes
from mlpexp.runtime.errors import UserError
from mlpexp.runtime.shell_commands import plain, script


def main() -> None:
    typed = sys.argv[1:]
    if typed and ("=" in typed[0] or typed[0] in ("-m", "--multirun")) and not Path(typed[0]).exists():
        command = script("train.py", *dict.fromkeys(["-m", *typed]))
        raise UserError(f"this lists and tidies a sweep that has been trained; to train one: {command}")
    args = _parser().parse_args()

    from mlpexp.cli import sweep_commands  # numpy: late, so that --help stays fast

    match args.action:
        case "list":
            sweep_commands.list_runs(args.directory, args.status)
        case "show":
            sweep_commands.show(args.directory, args.run)
        case "rm":
            sweep_commands.remove(args.directory, args.runs, args.status, aside=args.set_aside, yes=args.yes)
        case "compact":
            sweep_commands.compact(args.directory, weights=not args.no_weights, yes=args.yes)
        case "restore":
            sweep_commands.restore(args.directory, yes=args.yes)


def _parser() -> argparse.ArgumentParser:
    parser = argument_parsers.parser(__doc__, f"{plain('sweep.py')} multirun/NAME rm --status failed")
    parser.add_argument("directory", type=Path, metavar="DIR", help="a sweep's directory, e.g. multirun/NAME")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    _with_status(actions.add_parser("list", help="every run with its status and size"))
    show = actions.add_parser("show", help="numbers of runs and sizes, or one run with its files")
    show.add_argument("run", nargs="?", metavar="RUN", help="the name of a run")
    remove = actions.add_parser("rm", help="remove runs; files that mlpexp has not written stay")
    remove.add_argument("runs", nargs="*", metavar="RUN", help="names of runs, or patterns such as 'width=4*'")
    _with_status(remove)
    remove.add_argument("--set-aside", action="store_true", help="runs that were set aside")
    compact = actions.add_parser(
        "compact", help="move finished runs into one table, with the weights they were tested with"
    )
    compact.add_argument("--no-weights", action="store_true", help="keep no weights either")
    restore = actions.add_parser("restore", help="give the runs of the table directories again")
    for action in (remove, compact, restore):
        action.add_argument("--yes", action="store_true", help="do it; without it, what would be done is printed")
    return parser


def _with_status(action: argparse.ArgumentParser) -> None:
    action.add_argument(
        "--status",
        action="extend",
        type=lambda text: text.split(","),
        metavar="STATUS",
        help="runs of this status, or of several: failed,damaged",
    )


if __name__ == "__main__":
    exit_codes.run(main)
