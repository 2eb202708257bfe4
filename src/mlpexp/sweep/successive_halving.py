"""Successive halving: all runs of a sweep start together, and after each rung only the best of them continue.

Jamieson and Talwalkar, "Non-stochastic best arm identification and hyperparameter optimization" (2016). Between two
rungs a run is kept on the host as a `TrainingState`, and is stacked again with those of its shape that are still left;
its neighbours change none of its bits.
"""

import csv
import io
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path

from mlpexp.config.launcher_settings import Settings
from mlpexp.config.schema import Config
from mlpexp.models import saved_states
from mlpexp.models.training_state import TrainingState
from mlpexp.nn.metrics import columns, higher_is_better, recorded
from mlpexp.runtime import signals
from mlpexp.runtime.errors import Interrupted, UserError
from mlpexp.store import file_names, stack_states
from mlpexp.store.run_store import RunStore
from mlpexp.sweep.hydra_jobs import Job, Outcome, failed
from mlpexp.sweep.planner import cannot_be_stacked, plan
from mlpexp.sweep.remote_workers import Watcher
from mlpexp.sweep.work_unit import (
    Unit,
    data_of,
    identities,
    isolate,
    load_states,
    mark_interrupted,
    train_part,
    write_outcome,
)

WHOLE_SWEEP = -1  # the name under which progress is reported


def problems(configs: Sequence[Config], settings: Settings) -> Iterator[str]:
    """Why these runs cannot be compared with each other, one line each."""
    if any(cfg.halving != configs[0].halving for cfg in configs):
        yield "halving.* is one setting for the whole sweep, whose runs are compared; give each key one value"
    if any(cfg.monitor != configs[0].monitor for cfg in configs):
        yield "halving compares all runs by one metric; give monitor one value"
    losses = {(cfg.loss_function.name, cfg.loss.delta): cfg for cfg in configs}
    if len(losses) > 1 and configs[0].monitor == "val/loss":
        usual = columns("val", names=recorded(configs[0].data.learns))[-1]
        yield f"halving compares all runs, and values of several losses cannot be compared; set e.g. monitor={usual}"
    if settings.backend not in ("auto", "process"):
        yield f"halving trains in this process; leave hydra.launcher.backend={settings.backend} out"
    for reason in dict.fromkeys(cannot_be_stacked(cfg) for cfg in configs):
        if reason:
            yield f"halving happens in stacks, and a run with {reason} trains alone; leave out the one or the other"


def ranked(values: Mapping[int, float]) -> list[int]:
    """The candidates from best to worst: smaller is better, NaN comes last, of equals the earlier first."""
    return sorted(values, key=lambda place: (math.inf if math.isnan(values[place]) else values[place], place))


@dataclass
class Halving:
    """A `Backend` that trains the units of a whole sweep side by side, rung by rung, in this process.

    Runs that are done already take part with their recorded metrics, so that a sweep which continues makes the same
    cuts.
    """

    sweep: Sequence[Job]
    outcomes: Sequence[Outcome]
    directory: Path
    workers: int = 1
    _left: set[int] = field(default_factory=set)
    """runs that are in training, by their place in the sweep"""
    _states: dict[int, TrainingState] = field(default_factory=dict)
    """of runs between two stacks"""

    def run(self, units: Sequence[Unit], watcher: Watcher) -> Iterator[tuple[int, Outcome]]:
        self._left = {place for unit in units for place in unit.places}
        self._states = {place: state for unit in units for place, state in load_states(unit).items()}
        try:
            yield from self._rungs(self._reporter(watcher))
        except Interrupted as stop:
            places = sorted(self._left)
            with signals.deferred():
                self._save_states()
            mark_interrupted([self.sweep[place] for place in places], stop)
            raise

    def _rungs(self, report: Callable[[int, float], None]) -> Iterator[tuple[int, Outcome]]:
        halving = self.sweep[0].config.halving
        earlier = _Earlier(self.sweep, self.outcomes, self.directory)
        candidates = set(range(len(self.sweep)))
        for rung in [*(halving.rungs or []), None]:
            for unit in self._stacks():
                train = partial(train_part, states=self._states, report=partial(report, len(unit.jobs)), until=rung)
                for part, trained in isolate(unit, train):
                    if isinstance(trained, Exception):
                        yield self._ended(part.places[0], failed(part.jobs[0], trained))
                        continue
                    self._states |= {place: trained.state(row) for row, place in enumerate(part.places)}
                    if rung is None:
                        yield from self._write(part.places)
            if not self._left or rung is None:
                return
            values = {place: self._reached(place, rung, earlier) for place in candidates}
            order = ranked(values)
            candidates = set(order[: -(-len(order) // halving.factor)])
            position = {place: number for number, place in enumerate(order, 1)}
            leaving = []
            for place in sorted(self._left):
                record = self._states[place].record
                if record.has_ended(self.sweep[place].config.trainer.max_epochs):
                    leaving.append(place)
                elif place not in candidates:
                    record.left = f"left at epoch {rung}: place {position[place]:,} of {len(order):,}"
                    leaving.append(place)
            yield from self._write(leaving)
            if not self._left:
                return

    def _stacks(self) -> list[Unit]:
        """The runs that are still left, in stacks of equal shape and epoch."""
        places = sorted(self._left)
        jobs = [self.sweep[place] for place in places]
        epochs = [len(self._states[place].record.history) if place in self._states else 0 for place in places]
        division = plan([job.config for job in jobs], [data_of(job) for job in jobs], epochs_done=epochs)
        return [self._unit([places[run] for run in stack.runs]) for stack in division.stacks]

    def _unit(self, places: Sequence[int]) -> Unit:
        return Unit(places=tuple(places), jobs=tuple(self.sweep[place] for place in places), sweep=self.directory)

    def _reached(self, place: int, epochs: int, earlier: "_Earlier") -> float:
        """The best value of a run within so many epochs; smaller is better, infinite for a run without one."""
        cfg = self.sweep[place].config
        if place in self._states:
            values = [row[cfg.monitor] for row in self._states[place].record.history]
        else:
            values = earlier.values(place)
        sign = -1 if higher_is_better(cfg.monitor) else 1
        return min((sign * value for value in values[:epochs] if math.isfinite(value)), default=math.inf)

    def _write(self, places: Sequence[int]) -> Iterator[tuple[int, Outcome]]:
        with signals.deferred():
            for place in places:
                job = self.sweep[place]
                yield self._ended(place, write_outcome(job, data_of(job), self._states[place]))

    def _ended(self, place: int, outcome: Outcome) -> tuple[int, Outcome]:
        self._left.discard(place)
        self._states.pop(place, None)
        return place, outcome

    def _save_states(self) -> None:
        """Save the runs between two stacks, but for those that are saved already."""
        unit = self._unit(sorted(self._states))
        saved = stack_states.saved_runs(self.directory) if unit.places else {}
        states = {
            identity: self._states[place]
            for place, identity in zip(unit.places, identities(unit), strict=True)
            if identity not in saved or saved[identity].epochs < len(self._states[place].record.history)
        }
        if states:
            saved_states.save(self.directory, states)

    def _reporter(self, watcher: Watcher) -> Callable[[int, float], None]:
        """A function that is called with the number of its runs after each epoch of a stack."""
        halving = self.sweep[0].config.halving
        last = max(job.config.trainer.max_epochs for job in self.sweep)
        started = count = len(self._left)
        before = total = 0
        for rung in [*(halving.rungs or []), last]:
            total += count * (rung - before)
            count, before = -(-count // halving.factor), rung
        done = sum(len(state.record.history) for state in self._states.values())

        def report(runs: int, _: float) -> None:
            nonlocal done
            done += runs
            written = started - len(self._left)
            watcher.progress(WHOLE_SWEEP, started * min(1.0, done / total) - written)

        return report


class _Earlier:
    """The curves of runs that an earlier start has finished; read when they are first asked for."""

    def __init__(self, sweep: Sequence[Job], outcomes: Sequence[Outcome], directory: Path) -> None:
        self._sweep, self._outcomes, self._store = sweep, outcomes, RunStore(directory)
        self.values = cache(self._values)

    def _values(self, place: int) -> list[float]:
        """The monitored metric after each epoch; empty for a run that is not done."""
        if not self._outcomes[place].is_done:
            return []
        job = self._sweep[place]
        text = self._store.read(self._store.name_of(job.directory), file_names.METRICS)
        if text is None:
            raise UserError(f"{job.directory} has no {file_names.METRICS}; move the directory away and start again")
        return [float(row[job.config.monitor]) for row in csv.DictReader(io.StringIO(text))]
