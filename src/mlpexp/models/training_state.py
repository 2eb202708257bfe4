"""The state of runs between two epochs: everything that the next epoch depends on, and what was recorded so far.

Halving keeps it between two rungs, the store keeps it on disk while a stack trains, and a run's files are written from
it. Letters: R runs.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mlpexp.config.schema import Config
from mlpexp.engine.interface import StackEngine
from mlpexp.nn.early_stopping import Progress
from mlpexp.nn.run_axis import choose_runs
from mlpexp.nn.weight_averaging import AVERAGE


@dataclass
class RunRecord:
    """The records of one run, alone or in a stack, in plain numbers."""

    progress: Progress
    history: list[dict[str, float]] = field(default_factory=list)
    """the metrics of each epoch"""
    layer_rows: list[list[float | str]] = field(default_factory=list)
    tested: dict[str, float] = field(default_factory=dict)
    confusion: list[list[int]] = field(default_factory=list)
    """test samples by true and by predicted class; empty unless layers are inspected, too"""
    test_hits: str = ""
    """see `store.test_hits`; empty unless recorded"""
    stop_reason: str = ""
    """why halving or a pruner stopped the run before its end"""

    @classmethod
    def of(
        cls,
        cfg: Config,
        history: Iterable[Mapping[str, float]] = (),
        layer_rows: Sequence[list[float | str]] = (),
    ) -> "RunRecord":
        """The record of a run of `cfg` after the epochs of `history`."""
        record = cls(Progress.of(cfg.monitor, cfg.early_stopping, cfg.first_epoch), layer_rows=list(layer_rows))
        for row in history:
            record.add(row, cfg.monitor)
        return record

    def add(self, metrics: Mapping[str, float], monitor: str) -> bool:
        """Add an epoch; returns whether it is the best so far."""
        self.history.append(dict(metrics))
        return self.progress.update(len(self.history) - 1, metrics.get(monitor, math.nan))

    def has_ended(self, max_epochs: int) -> bool:
        """Whether the run has trained its last epoch or was stopped early."""
        return self.progress.stopped or len(self.history) >= max_epochs

    def copy(self) -> "RunRecord":
        """A copy to continue from, without the test; recording in it does not change this record."""
        return RunRecord(Progress(**vars(self.progress)), list(self.history), list(self.layer_rows))


class Snapshot:
    """Parameters, running statistics and optimizer state of all runs of a stack, each from its own epoch.

    Attributes:
        parameters: by name, running statistics too, (R, ...).
        state: by torch's name, one stacked tensor for each parameter.
    """

    def __init__(self, parameters: Mapping[str, Tensor], state: Mapping[str, Sequence[Tensor]]) -> None:
        self.parameters, self.state = dict(parameters), {name: list(tensors) for name, tensors in state.items()}

    @classmethod
    def from_engine(cls, engine: StackEngine) -> "Snapshot":
        """The engine's present values, copied."""
        return cls(engine.parameters, engine.state)._map(torch.clone)

    def take(self, engine: StackEngine, places: list[int], runs: list[int]) -> None:
        """Copy the engine's rows `places` to the rows `runs`."""
        if not places:
            return
        for values, engine_values in self._pairs(engine):
            if len(places) == len(values) == len(engine_values):
                values.copy_(engine_values)
            else:
                source, target = (torch.tensor(rows, device=values.device) for rows in (places, runs))
                values.index_copy_(0, target, engine_values.index_select(0, source))

    def row(self, run: int) -> "Snapshot":
        """One run, copied to the host, with R = 1."""
        return self.view(run)._map(lambda values: values.to("cpu", copy=True))

    def view(self, run: int) -> "Snapshot":
        """One run as a view of the stack's tensors, with R = 1."""
        return self._map(lambda values: values[run : run + 1])

    def fill(self, rows: Sequence["Snapshot"]) -> None:
        """Overwrite all runs, each with a row; a run whose former neighbours had no momentum either has no state."""
        for name, values in self.parameters.items():
            values.copy_(torch.cat([row.parameters[name] for row in rows]))
        for name, tensors in self.state.items():
            places = [i for i, row in enumerate(rows) if name in row.state]
            for values, *row_values in zip(tensors, *(rows[i].state[name] for i in places), strict=True):
                if row_values:
                    values[places] = torch.cat(row_values).to(values)

    def restore(self, engine: StackEngine, num_steps: int) -> None:
        """Bring all runs of the engine to where they were after `num_steps` steps."""
        for values, engine_values in self._pairs(engine):
            engine_values.copy_(values)
        engine.num_steps = num_steps

    @staticmethod
    def chosen(best: "Snapshot", last: "Snapshot", use_best: list[bool]) -> "Snapshot":
        """For each run the parameters of `best` or of `last`."""
        runs = torch.tensor(use_best)
        return Snapshot(
            {name: choose_runs(runs, values, last.parameters[name]) for name, values in best.parameters.items()}, {}
        )

    def averaged(self, runs: Sequence[bool]) -> "Snapshot":
        """The same with the averages of these runs in the place of their parameters."""
        if not any(runs):
            return self
        pairs = zip(self.parameters.items(), self.state[AVERAGE], strict=True)
        chosen = torch.tensor(runs)
        return Snapshot({name: choose_runs(chosen, averages, values) for (name, values), averages in pairs}, self.state)

    def cpu(self) -> "Snapshot":
        """Move everything to the host."""
        moved = self._map(Tensor.cpu)
        self.parameters, self.state = moved.parameters, moved.state
        return self

    def _map(self, change: Callable[[Tensor], Tensor]) -> "Snapshot":
        return Snapshot(
            {name: change(values) for name, values in self.parameters.items()},
            {name: [change(values) for values in tensors] for name, tensors in self.state.items()},
        )

    def _pairs(self, engine: StackEngine) -> Iterator[tuple[Tensor, Tensor]]:
        for name, values in self.parameters.items():
            yield values, engine.parameters[name]
        for name, tensors in engine.state.items():  # no momentum any more, if all runs that have it are gone
            yield from zip(self.state[name], tensors, strict=True)


@dataclass(frozen=True, kw_only=True)
class TrainingState:
    """One run between two epochs, on the host."""

    record: RunRecord
    best: Snapshot
    """in the best epoch, with R = 1"""
    last: Snapshot
    """in the last epoch, with R = 1"""
    wall_times: list[float]
    """seconds since 1970: the start of the run, then the end of each epoch"""
    seconds: float = 0.0
    """the run's share of the training time so far"""
    num_steps: int | None = None
    """steps behind the optimizer's state; None: those of the epochs that are recorded"""
