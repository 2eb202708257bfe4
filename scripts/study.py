"""The figure and the numbers of a study, from the results of its sweep."""

import argparse
from importlib import import_module
from pathlib import Path

import require_environment  # noqa: F401

from mlpexp.cli import argument_parsers, exit_codes
from mlpexp.runtime.errors import UserError
from mlpexp.runtime.shell_commands import plain
from mlpexp.runtime.terminal import say

STUDIES = (
    *("notebook_variants", "depth_width_activation", "vanishing", "edge_of_chaos"),
    *("width_double_descent", "learning_rate_transfer", "seed_luck"),
)
PAGES = Path(__file__).parents[1] / "docs/studies/images"
DPI = 110


def main() -> None:
    args = _parser().parse_args()

    from mlpexp.store import atomic_files, owned_directory  # numpy and matplotlib: late, so that --help stays fast
    from mlpexp.store.results_table import load_results
    from mlpexp.tracking.figures.plot_style import png

    sweep = args.directory or Path("multirun", args.name)
    try:
        study = import_module(f"mlpexp.report.studies.{args.name}")
        read = getattr(study, "read", load_results)  # most studies need only the table
        verdict = study.verdict(read(sweep))
    except UserError as error:
        raise UserError(f"{error}\nfirst train it: {plain('train.py')} -m experiment={args.name}") from error
    figure, _, _ = png(verdict.figure, DPI)
    text = "\n".join(verdict.sentences) + "\n"
    if args.pages:
        if not PAGES.is_dir():
            raise UserError("--pages writes the figures of the documentation, which a checkout has; use --out DIR")
        path = PAGES / f"{args.name}.png"
        atomic_files.write(path, figure)
    else:
        out = args.out or sweep / "study"
        files: dict[str, bytes | str] = {f"{args.name}.png": figure, f"{args.name}.txt": text}
        owned_directory.replace(out, files, "study", "choose another directory with --out DIR")
        path = out / f"{args.name}.png"
    say(text)
    say(path)


def _parser() -> argparse.ArgumentParser:
    parser = argument_parsers.parser(__doc__, f"{plain('study.py')} edge_of_chaos")
    parser.add_argument("name", choices=STUDIES, metavar="NAME", help=f"one of {', '.join(STUDIES)}")
    parser.add_argument("directory", type=Path, nargs="?", metavar="DIR", help="its sweep (default: multirun/NAME)")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--out", type=Path, metavar="DIR", help="where to write figure and text (default: DIR/study)")
    where.add_argument(
        "--pages", action="store_true", help="write the figure to docs/studies/images, where the pages show it"
    )
    return parser


if __name__ == "__main__":
    exit_codes.run(main)
