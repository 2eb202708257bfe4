"""A study's figure and its verdict in numbers, from the table of its sweep."""

import argparse
from importlib import import_module
from pathlib import Path

import require_environment  # noqa: F401

from mlpexp.cli import exit_codes
from mlpexp.runtime import shell_commands
from mlpexp.runtime.errors import UserError

STUDIES = (
    *("notebook_variants", "depth_width_activation", "vanishing", "edge_of_chaos"),
    *("width_double_descent", "learning_rate_transfer", "seed_luck"),
)


def main() -> None:
    given = _parser().parse_args()

    from mlpexp.store import atomic_files  # numpy and matplotlib: late, so that --help stays instant
    from mlpexp.store.results_table import load_results
    from mlpexp.tracking.figures.plot_style import png

    try:
        study = import_module(f"mlpexp.studies.{given.name}")
        read = getattr(study, "read", load_results)  # most need the table only
        found = study.verdict(read(given.directory or Path("multirun", given.name)))
    except UserError as error:
        raise UserError(
            f"{error}\nfirst train it: {shell_commands.script('train.py', '-m', f'experiment={given.name}')}"
        ) from error
    place = given.out / f"{given.name}.png"
    place.parent.mkdir(parents=True, exist_ok=True)
    atomic_files.write(place, png(found.figure, 110)[0])
    print("\n".join(found.sentences))
    print(f"\n{place}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, epilog="example: python scripts/study.py edge_of_chaos")
    parser.add_argument("name", choices=STUDIES, metavar="NAME", help=", ".join(STUDIES))
    parser.add_argument("directory", type=Path, nargs="?", metavar="DIR", help="its sweep (default: multirun/NAME)")
    parser.add_argument(
        "--out", type=Path, default=Path("docs/studies/images"), help="where to draw (default: docs/studies/images)"
    )
    return parser


if __name__ == "__main__":
    exit_codes.run(main)
