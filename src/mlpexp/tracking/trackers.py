"""Trackers record finished runs outside of the runs' directories, in a file or another program; a registry entry each.

A tracker gets many runs at once, when their stack has ended. Runs that could not be recorded, because of a crash or an
unreachable server, are passed to it again by the next start of the same command. A run is recognised by its identity,
so it has one record.
"""

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

from mlpexp.runtime.registry import Registry

TENSORBOARD, NONE = "tensorboard", "none"


@dataclass(frozen=True, kw_only=True, slots=True)
class TrackedRun:
    """A run that has ended, in plain numbers.

    Attributes:
        name: in its sweep, e.g. `depth=2,seed=0`.
        identity: of the training; see `store.identity`.
        earlier: the identities that the same training had when it was shorter.
        params: its settings, by their dotted keys.
        history: of each epoch, the metrics by name, e.g. `train/loss`.
        final: the metrics of `epoch`, and `test/*`.
        epoch: the epoch of `final`, from 0; None if there is none.
        status: `ok`, `chance`, `diverged` or `stopped`.
        message: more about the status, or empty.
        started, ended: seconds since 1970.
        files: its artifacts by their names, e.g. `checkpoints/best.ckpt`; none where it has no directory.
    """

    name: str
    identity: str
    earlier: tuple[str, ...] = ()
    params: Mapping[str, bool | int | float | str]
    history: Sequence[Mapping[str, float]]
    final: Mapping[str, float]
    epoch: int | None
    status: str
    message: str = ""
    started: float
    ended: float
    files: Mapping[str, Path] = field(default_factory=dict)

    @property
    def summary(self) -> dict[str, float]:
        """The final metrics, by names that no curve has: `best/val/loss`, `test/acc`."""
        return {name if name.startswith("test/") else f"best/{name}": value for name, value in self.final.items()}

    @property
    def epoch_ends(self) -> list[float]:
        """The end of each epoch, in seconds since 1970: evenly spaced, since a stack trains many runs at once."""
        length = (self.ended - self.started) / max(1, len(self.history))
        return [self.started + length * (epoch + 1) for epoch in range(len(self.history))]


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """The sweep of the runs, or a run alone.

    Attributes:
        key: stays the same when the directory is renamed or moved.
        directory: of the sweep, or of the run.
        home: the working directory of the command, from which relative paths are taken.
    """

    key: str
    directory: Path
    home: Path
    is_sweep: bool

    @property
    def name(self) -> str:
        return self.directory.name


class Tracker(Protocol):
    """Records runs; an exception of a method is reported in one line, and training continues."""

    def known(self) -> Container[str]:
        """The identities of the runs of the group that are recorded completely."""
        ...

    def record(self, runs: Sequence[TrackedRun]) -> None:
        """Record the unknown runs, each completely or not at all, and remove the `earlier` records of all."""
        ...

    def close(self) -> None:
        """Called after the last run has been recorded."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """A choice of `tracker`.

    Attributes:
        maker: makes a `Tracker` of a `Group`, or is named by module and class; None: nothing beside the runs' files.
        modules: that have to be installed.
        extra: of mlpexp, which installs them.
    """

    maker: str | Callable[[Group], Tracker] | None = None
    modules: tuple[str, ...] = ()
    extra: str = ""

    def missing(self) -> tuple[str, ...]:
        """The modules that are not installed."""
        return tuple(name for name in self.modules if find_spec(name) is None)

    def open(self, group: Group) -> Tracker:
        """The tracker of a group."""
        if callable(self.maker):
            return self.maker(group)
        module, _, name = (self.maker or "").partition(":")
        return getattr(import_module(module), name)(group)


TRACKERS: Registry[Entry] = Registry(
    "tracker",
    {
        TENSORBOARD: Entry(),
        "csv": Entry(maker="mlpexp.tracking.curves_file:CurvesFile"),
        "mlflow": Entry(
            maker="mlpexp.tracking.mlflow_tracker:MlflowTracker", modules=("mlflow", "sqlalchemy"), extra="mlflow"
        ),
        "wandb": Entry(maker="mlpexp.tracking.wandb_tracker:WandbTracker", modules=("wandb",), extra="wandb"),
        NONE: Entry(),
    },
)
