"""Finds the checkpoint that a path means: a run's directory, its folder of checkpoints, or a file."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mlpexp.analysis.ranking import best_run
from mlpexp.analysis.sweep_analysis import analyse
from mlpexp.runtime import shell_commands
from mlpexp.runtime.errors import UserError
from mlpexp.runtime.terminal import counted
from mlpexp.store import file_names, run_directory, run_weights

Weights = Literal["best", "last"]
FILES: dict[Weights, str] = {"best": file_names.BEST, "last": file_names.LAST}
AVERAGE = "average several with --ensemble N"
NO_WEIGHTS = "train it with keep_weights=true under another name=…, or a run alone without record=table"
OF_A_SWEEP = (file_names.RESULTS, file_names.MULTIRUN, file_names.MANIFEST, file_names.TABLE)


@dataclass(frozen=True, kw_only=True)
class CheckpointLocation:
    """A checkpoint to read.

    Attributes:
        checkpoint: the file.
        directory: of its run; None for a file outside of a run.
        weights: which checkpoint of the run; None for a file outside of a run.
    """

    checkpoint: Path
    directory: Path | None = None
    weights: Weights | None = None

    @property
    def folder(self) -> Path:
        """Where files that are made from it are written."""
        return self.directory or self.checkpoint.parent

    @property
    def stem(self) -> str:
        """The name of such files without suffix."""
        return "model" if self.directory else self.checkpoint.stem


def check_output_path(path: Path, *, force: bool) -> None:
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


def find(path: Path, weights: Weights | None = None) -> CheckpointLocation:
    """The checkpoint that `path` means: a run's directory, a folder of checkpoints, or the file itself.

    Args:
        weights: which of a run's checkpoints; by default the best.

    Raises:
        UserError: nothing is there, or several runs are.
    """
    if not path.exists():
        if location := _in_table(path, weights):
            return location
        raise UserError(f"{path} does not exist; give a run's directory, e.g. outputs/DATE/TIME, or a checkpoint")
    if not path.is_dir():
        return _file(path, weights)
    directory = path.resolve().parent if (path / "best.ckpt").is_file() or (path / "last.ckpt").is_file() else path
    kind = weights or "best"
    if (directory / FILES[kind]).is_file():
        return CheckpointLocation(checkpoint=directory / FILES[kind], directory=directory, weights=kind)
    if (directory / file_names.LAST).is_file() or (directory / file_names.BEST).is_file():
        other_kind: Weights = "last" if kind == "best" else "best"
        raise UserError(f"{path} has no {FILES[kind]}; it has the other one: --weights {other_kind}")
    if location := _in_table(path, weights):  # the directory holds what was made from the run
        return location
    raise UserError(_hint(path))


def _in_table(path: Path, weights: Weights | None) -> CheckpointLocation | None:
    """The checkpoint of a run of a sweep with `record=table`; None where `path` is no such run."""
    if not run_weights.is_in_table(path):
        return None
    name = run_weights.checkpoint_of(path)
    if name is None:
        raise UserError(f"{path} keeps no weights (record=table); {NO_WEIGHTS}")
    kind: Weights = "last" if name == file_names.LAST else "best"
    if weights not in (None, kind):
        raise UserError(f"{path} keeps the {kind} weights only (record=table); leave --weights out")
    return CheckpointLocation(checkpoint=path / name, directory=path, weights=kind)


def _file(path: Path, weights: Weights | None) -> CheckpointLocation:
    for name, file in FILES.items():
        if path.name == Path(file).name and path.absolute().parent.name == Path(file).parent.name:
            directory = path.parent.parent if path.parent.name else path.absolute().parent.parent
            if weights not in (None, name):
                raise UserError(f"{path} holds the {name} weights; leave --weights out, or give {directory}")
            return CheckpointLocation(checkpoint=path, directory=directory, weights=name)
    if weights is not None:
        raise UserError(f"--weights chooses between the checkpoints of a run, and {path} is a file; leave it out")
    return CheckpointLocation(checkpoint=path)


def _hint(path: Path) -> str:
    """Why no checkpoint is in a directory, and what may be meant."""
    if (path / file_names.RESULT).is_file():
        status = run_directory.read_result(path).status
        return f"{path} has no checkpoint: the run ended as {status}; train it again"
    runs = sorted(file.parent for file in path.glob(f"*/{file_names.RESULT}"))
    if any((path / name).is_file() for name in OF_A_SWEEP):
        if not runs and (path / file_names.TABLE).is_file():
            if (path / file_names.WEIGHTS).is_file():
                return f"{path} is a sweep; give one of its runs, {path}/NAME with a name of results.csv, or {AVERAGE}"
            return f"{path} was trained with record=table, which keeps no checkpoints; {NO_WEIGHTS}"
        if not runs:
            return f"{path} is a sweep in which no run has finished; the command that started it continues it"
        best = _best_run(path) if len(runs) > 1 else (runs[0], "")
        example = f"the best by validation is {best[0]}{best[1]}" if best else f"e.g. {runs[0]}"
        return (
            f"{path} is a sweep of {counted(len(runs), 'finished run')}; give one of them, {example}, "
            f"{AVERAGE}, or compare them all with {shell_commands.script('report.py', str(path))}"
        )
    if not runs:
        runs = sorted(file.parent for file in path.glob(f"*/*/{file_names.RESULT}"))
    if runs:
        return f"{path} holds {counted(len(runs), 'run')}; give one, e.g. the newest: {runs[-1]}"
    return f"{path} holds no run: there is no {file_names.BEST} in it; give a run's directory, e.g. outputs/DATE/TIME"


def _best_run(sweep: Path) -> tuple[Path, str] | None:
    """The best run by the ranking of terminal and report, and a warning where runs differ in validation samples.

    None where it has no checkpoint, or none can be ranked.
    """
    try:
        analysis = analyse(sweep)
    except UserError:
        return None
    run = best_run(analysis.study, analysis.ranking)
    directory = None if run is None else sweep / analysis.study.names[run]
    if directory is None or not (directory / file_names.BEST).is_file():
        return None
    split_keys = [key.name for key in analysis.study.seeds if key.name != "seed" and len(key.levels) > 1]
    return directory, f" (of runs with other validation samples, by {' and '.join(split_keys)})" if split_keys else ""
