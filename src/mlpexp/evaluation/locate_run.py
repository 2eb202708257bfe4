"""What a person meant by a path: the checkpoint of one run, or a hint where that is unclear."""

import csv
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mlpexp.runtime import shell_commands
from mlpexp.runtime.errors import UserError
from mlpexp.store import file_names, run_directory

Weights = Literal["best", "last"]
FILES: dict[Weights, str] = {"best": file_names.BEST, "last": file_names.LAST}
SWEEP_FILES = ("results.csv", "multirun.yaml", "manifest.json")


@dataclass(frozen=True, kw_only=True)
class Place:
    """A checkpoint to read.

    Attributes:
        checkpoint: the file.
        directory: of the run that it belongs to; None for a file that lies somewhere else.
        weights: which of the run's two; None for a file that lies somewhere else.
    """

    checkpoint: Path
    directory: Path | None = None
    weights: Weights | None = None

    @property
    def folder(self) -> Path:
        """Where what is made from it belongs."""
        return self.directory or self.checkpoint.parent

    @property
    def stem(self) -> str:
        """What that is called."""
        return "model" if self.directory else self.checkpoint.stem


def check_new(path: Path, *, force: bool) -> None:
    """
    Raises:
        UserError: no file can be written there, or one is there already.
    """
    if path.is_dir():
        raise UserError(f"{path} is a directory; give the name of a file, e.g. --out {path / 'model'}")
    if not path.parent.is_dir():
        raise UserError(f"{path}: there is no directory {path.parent}; make it, or give another file with --out")
    if path.exists() and not force:
        raise UserError(f"{path} is there already; give another file with --out, or --force to replace it")


def find(path: Path, weights: Weights | None = None) -> Place:
    """The checkpoint that `path` means: a run's directory, a folder of checkpoints, or the file itself.

    Args:
        weights: which of a run's checkpoints; the best unless told otherwise.

    Raises:
        UserError: nothing is there, or several runs are.
    """
    if not path.exists():
        raise UserError(f"{path} does not exist; give a run's directory, e.g. outputs/DATE/TIME, or a checkpoint")
    if not path.is_dir():
        return _file(path, weights)
    directory = path.resolve().parent if (path / "best.ckpt").is_file() or (path / "last.ckpt").is_file() else path
    wanted = weights or "best"
    if (directory / FILES[wanted]).is_file():
        return Place(checkpoint=directory / FILES[wanted], directory=directory, weights=wanted)
    if (directory / file_names.LAST).is_file() or (directory / file_names.BEST).is_file():
        other: Weights = "last" if wanted == "best" else "best"
        raise UserError(f"{path} has no {FILES[wanted]}; it has the other one, --weights {other}")
    raise UserError(_hint(path))


def _file(path: Path, weights: Weights | None) -> Place:
    for name, file in FILES.items():
        if path.name == Path(file).name and path.absolute().parent.name == Path(file).parent.name:
            directory = path.parent.parent if path.parent.name else path.absolute().parent.parent
            if weights not in (None, name):
                raise UserError(f"{path} holds the {name} weights; leave --weights out, or give {directory}")
            return Place(checkpoint=path, directory=directory, weights=name)
    if weights is not None:
        raise UserError(f"--weights chooses between the checkpoints of a run, and {path} is a file; leave it out")
    return Place(checkpoint=path)


def _hint(path: Path) -> str:
    """Why a directory without checkpoints is not enough, and what may have been meant."""
    if (path / file_names.RESULT).is_file():
        status = run_directory.read_result(path).status
        return f"{path} has no checkpoint: the run ended as {status}; train it again"
    inside = sorted(file.parent for file in path.glob(f"*/{file_names.RESULT}"))
    if any((path / name).is_file() for name in SWEEP_FILES):
        if not inside:
            return f"{path} is a sweep in which no run has finished; carry on with the command that started it"
        best = _best_run(path)
        which = f"the best by validation is {best}" if best else f"e.g. {inside[0]}"
        return (
            f"{path} is a sweep of {len(inside):,} finished run{'s' * (len(inside) != 1)}; give one of them, {which}, "
            f"or compare them all with {shell_commands.script('report.py', str(path))}"
        )
    if not inside:
        inside = sorted(file.parent for file in path.glob(f"*/*/{file_names.RESULT}"))
    if inside:
        return f"{path} holds {len(inside):,} run{'s' * (len(inside) != 1)}; give one, e.g. the newest: {inside[-1]}"
    return f"{path} holds no run: there is no {file_names.BEST} in it; give a run's directory, e.g. outputs/DATE/TIME"


def _best_run(sweep: Path) -> Path | None:
    """Of the sweep's own table: the least validation loss; None where the table cannot be read."""
    best, least = None, math.inf
    try:
        with (sweep / "results.csv").open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                loss = float(row["val/loss"] or "inf")
                place = sweep / row["name"]
                if row["status"] in run_directory.FINITE and loss < least and (place / file_names.BEST).is_file():
                    best, least = place, loss
    except (OSError, ValueError, KeyError, TypeError, csv.Error):
        return None
    return best
