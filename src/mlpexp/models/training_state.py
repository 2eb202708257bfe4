"""The state of runs between two epochs: everything that the next epoch depends on, and what was recorded so far.

Halving keeps it between two rungs, the store keeps it on disk while a stack trains, and a run's files are written from
it. Letters: R runs, O outputs and I inputs of a layer.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from mlpexp.engine.torch.engine import Engine
from mlpexp.nn.early_stopping import Progress


@dataclass
class RunRecord:
    """What one run of a stack has recorded, in plain numbers."""

    progress: Progress
    history: list[dict[str, float]] = field(default_factory=list)
    """the metrics of each epoch"""
    layer_rows: list[list[float | str]] = field(default_factory=list)
    tested: dict[str, float] = field(default_factory=dict)
    confusion: list[list[int]] = field(default_factory=list)
    """test samples by true and by predicted class; empty unless layers are inspected, too"""
    left: str = ""
    """why halving stopped the run"""

    def has_ended(self, max_epochs: int) -> bool:
        """Whether the run has come to its own end: its last epoch, or early stopping."""
        return self.progress.stopped or len(self.history) >= max_epochs

    def copy(self) -> "RunRecord":
        """To continue from: what is recorded further does not change this one; without the test."""
        return RunRecord(replace(self.progress), list(self.history), list(self.layer_rows))


class Snapshot:
    """Parameters and optimizer state of all runs of a stack, each taken in an epoch of its own.

    Attributes:
        weights, biases: of each layer, (R, O, I) and (R, O).
        state: by torch's name, one stacked tensor for each parameter: the weights, then the biases.
    """

    def __init__(self, weights: list[Tensor], biases: list[Tensor], state: dict[str, list[Tensor]]) -> None:
        self.weights, self.biases, self.state = weights, biases, state

    @classmethod
    def of(cls, engine: Engine) -> "Snapshot":
        state = {name: [t.clone() for t in tensors] for name, tensors in engine.state.items()}
        return cls([w.clone() for w in engine.weights], [b.clone() for b in engine.biases], state)

    def take(self, engine: Engine, places: list[int], runs: list[int]) -> None:
        """Copy the engine's rows `places` to the rows `runs`."""
        if not places:
            return
        device = self.weights[0].device
        source, target = torch.tensor(places, device=device), torch.tensor(runs, device=device)
        for mine, theirs in self._pairs(engine):
            if len(places) == len(mine) == len(theirs):
                mine.copy_(theirs)
            else:
                mine.index_copy_(0, target, theirs.index_select(0, source))

    def row(self, run: int) -> "Snapshot":
        """Of one run alone, in memory of its own on the host, with R = 1."""

        def rows(tensors: Sequence[Tensor]) -> list[Tensor]:
            return [t[run : run + 1].to("cpu", copy=True) for t in tensors]

        return Snapshot(rows(self.weights), rows(self.biases), {name: rows(t) for name, t in self.state.items()})

    def fill(self, rows: Sequence["Snapshot"]) -> None:
        """Overwrite all runs, each with a row; a run whose former neighbours had no momentum either has no state."""
        for i, row in enumerate(rows):
            for mine, theirs in zip([*self.weights, *self.biases], [*row.weights, *row.biases], strict=True):
                mine[i].copy_(theirs[0])
            for name in self.state.keys() & row.state.keys():
                for mine, theirs in zip(self.state[name], row.state[name], strict=True):
                    mine[i].copy_(theirs[0])

    def restore(self, engine: Engine, num_steps: int) -> None:
        """Bring all runs of the engine to where they were after `num_steps` steps."""
        for mine, theirs in self._pairs(engine):
            theirs.copy_(mine)
        engine.num_steps = num_steps

    @staticmethod
    def chosen(best: "Snapshot", last: "Snapshot", use_best: list[bool]) -> "Snapshot":
        """For each run the parameters of `best` or of `last`."""
        if all(use_best):
            return best
        mask = torch.tensor(use_best, device=best.weights[0].device)

        def pick(a: list[Tensor], b: list[Tensor]) -> list[Tensor]:
            return [torch.where(mask.view(-1, *[1] * (x.ndim - 1)), x, y) for x, y in zip(a, b, strict=True)]

        return Snapshot(pick(best.weights, last.weights), pick(best.biases, last.biases), {})

    def cpu(self) -> "Snapshot":
        """Move everything to the host."""
        self.weights, self.biases = [w.cpu() for w in self.weights], [b.cpu() for b in self.biases]
        self.state = {name: [t.cpu() for t in tensors] for name, tensors in self.state.items()}
        return self

    def _pairs(self, engine: Engine) -> Iterator[tuple[Tensor, Tensor]]:
        yield from zip([*self.weights, *self.biases], [*engine.weights, *engine.biases], strict=True)
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
