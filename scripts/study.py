"""A study's figure and its verdict in numbers, from the table of its sweep."""

import argparse
import sys
from importlib import import_module
from pathlib import Path

from mlpexp.errors import UserError

STUDIES = ("edge_of_chaos", "seed_luck", "learning_rate_transfer", "width_double_descent")


def main(arguments: list[str] | None = None) -> int:
    """The exit code: 0 done, 1 it could not be written, 2 the user's error."""
    given = _parser().parse_args(arguments)
    directory = given.directory or Path("multirun", given.name)
    try:
        from mlpexp import atomic  # numpy and matplotlib: late, so that --help stays instant
        from mlpexp.sweep.results import load_results
        from mlpexp.tracking.figures.style import png

        rows = load_results(directory)
        found = import_module(f"mlpexp.studies.{given.name}").verdict(rows)
        place = given.out / f"{given.name}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        atomic.write(place, png(found.figure, 110)[0])
    except UserError as error:
        print(f"study.py: {error}", file=sys.stderr)
        print(f"study.py: first train it: python scripts/train.py -m experiment={given.name}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"study.py: {error.strerror or error}{f': {error.filename}' if error.filename else ''}", file=sys.stderr)
        return 1
    print("\n".join(found.sentences))
    print(f"\n{place}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, epilog="example: python scripts/study.py edge_of_chaos")
    parser.add_argument("name", choices=STUDIES, metavar="NAME", help=", ".join(STUDIES))
    parser.add_argument("directory", type=Path, nargs="?", metavar="DIR", help="its sweep (default: multirun/NAME)")
    parser.add_argument(
        "--out", type=Path, default=Path("docs/studies/images"), help="where to draw (default: docs/studies/images)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
