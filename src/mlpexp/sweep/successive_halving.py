"""Successive halving: all runs of a sweep start together, and after each rung only the best of them go on.

Jamieson and Talwalkar, "Non-stochastic best arm identification and hyperparameter optimization" (2016). Between two
rungs a run lives on the host as parameters, optimizer state and record, and is stacked anew with those of its shape
that are still there; who its neighbours are changes none of its bits.
"""

import csv
import io
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from mlpexp.config.schema import Config
from mlpexp.models.stack_module import Paused, RunRecord, StackModule
from mlpexp.runtime import signals
from mlpexp.runtime.errors import Interrupted, UserError
from mlpexp.store import file_names
from mlpexp.store.run_store import RunStore
from mlpexp.sweep.backends.base import Watcher
from mlpexp.sweep.backends.launcher_settings import Settings
from mlpexp.sweep.failure_record import failed, interrupted
from mlpexp.sweep.planner import cannot_be_stacked, plan
from mlpexp.sweep.run_jobs import Job, Outcome
from mlpexp.sweep.train_stack import train_stack
from mlpexp.sweep.work_unit import Unit, data_of, written


def problems(configs: Sequence[Config], settings: Settings) -> Iterator[str]:
    """Why these runs cannot race each other, one line each."""
    if any(cfg.halving != configs[0].halving for cfg in configs):
        yield "halving.* is one setting for the whole sweep: its runs race each other; give each key one value"
    if any(cfg.monitor != configs[0].monitor for cfg in configs):
        yield "halving compares all runs by one metric; give monitor one value"
    if settings.backend not in ("auto", "process"):
        yield f"halving trains in this process; leave hydra.launcher.backend={settings.backend} out"
    for reason in dict.fromkeys(cannot_be_stacked(cfg) for cfg in configs):
        if reason:
            yield f"halving happens in stacks, and a run with {reason} trains alone; leave out the one or the other"


def ranked(values: Mapping[int, float]) -> list[int]:
    """The candidates from best to worst: smaller is better, NaN comes last, of equals the earlier first."""
    return sorted(values, key=lambda place: (math.inf if math.isnan(values[place]) else values[place], place))


@dataclass
class Race:
    """A `Backend` that trains the units of a whole sweep side by side, rung by rung, in this process.

    What is done already takes part with what its record says, so that a sweep which carries on makes the same cuts.
    """

    sweep: Sequence[Job]
    outcomes: Sequence[Outcome]
    directory: Path
    workers: int = 1
    _racing: set[int] = field(default_factory=set)
    """runs that are in training, by their place in the sweep"""
    _paused: dict[int, Paused] = field(default_factory=dict)
    _seconds: dict[int, float] = field(default_factory=dict)

    def run(self, units: Sequence[Unit], watcher: Watcher) -> Iterator[tuple[int, Outcome]]:
        self._racing = {place for unit in units for place in unit.places}
        self._seconds = dict.fromkeys(self._racing, 0.0)
        bar = _Epochs(watcher, self._share())
        try:
            yield from self._race([list(unit.places) for unit in units], bar)
        except Interrupted as stop:
            with signals.deferred():
                for place in sorted(self._racing):
                    if self.sweep[place].config.record == "run":
                        interrupted(self.sweep[place], stop)
            raise

    def _race(self, groups: list[list[int]], bar: Callback) -> Iterator[tuple[int, Outcome]]:
        halving = self.sweep[0].config.halving
        earlier = _Earlier(self.sweep, self.outcomes, self.directory)
        candidates = set(range(len(self.sweep)))
        for rung in halving.rungs or []:
            if not groups:
                return
            values = {place: earlier.value(place, rung) for place in candidates}
            trained: list[tuple[list[int], StackModule]] = []
            for group in groups:
                for places, end in self._train(group, rung, bar):
                    if isinstance(end, Outcome):
                        yield self._ended(places[0], end)
                    else:
                        trained.append((places, end))
                        values |= zip(places, map(_value, end.configs, end.records), strict=True)
            order = ranked(values)
            candidates = set(order[: -(-len(order) // halving.factor)])
            position = {place: number for number, place in enumerate(order, 1)}
            while trained:  # each stack goes as soon as it is written
                places, module = trained.pop(0)
                with signals.deferred():
                    for row, place in enumerate(places):
                        if not module.has_ended(row) and place in candidates:
                            self._paused[place] = module.paused(row)
                            continue
                        if not module.has_ended(row):
                            at = f"place {position[place]:,} of {len(order):,}"
                            module.records[row].left = f"left at epoch {rung}: {at}"
                        yield self._write(place, module, row)
            groups = self._stacks()
        for group in groups:
            for places, end in self._train(group, None, bar):
                if isinstance(end, Outcome):
                    yield self._ended(places[0], end)
                    continue
                with signals.deferred():
                    for row, place in enumerate(places):
                        yield self._write(place, end, row)

    def _stacks(self) -> list[list[int]]:
        """Those that are still in the race, stacked anew."""
        places = sorted(self._racing)
        if not places:
            return []
        jobs = [self.sweep[place] for place in places]
        division = plan([job.config for job in jobs], [data_of(job) for job in jobs])
        return [[places[run] for run in stack.runs] for stack in division.stacks]

    def _train(
        self, places: list[int], until: int | None, bar: Callback
    ) -> Iterator[tuple[list[int], StackModule | Outcome]]:
        """The trained stack of these runs; should it fail, by halves, and the outcome of a run whose fault it is."""
        jobs = [self.sweep[place] for place in places]
        configs = [job.config for job in jobs]
        torch.set_num_threads(configs[0].stack.threads or configs[0].threads)  # as alone: bits depend on it
        paused = [self._paused[place] for place in places if place in self._paused]
        started = time.perf_counter()
        try:
            module = train_stack(configs, [data_of(job) for job in jobs], [bar], paused=paused, until=until)
        except Interrupted:
            raise
        except Exception as error:
            if len(places) == 1:
                yield places, failed(jobs[0], error)
                return
            half = len(places) // 2
            yield from self._train(places[:half], until, bar)
            yield from self._train(places[half:], until, bar)
            return
        for place in places:
            self._seconds[place] += (time.perf_counter() - started) / len(places)
            self._paused.pop(place, None)
        module.rest()
        yield places, module

    def _write(self, place: int, module: StackModule, row: int) -> tuple[int, Outcome]:
        return self._ended(place, written(module, row, self.sweep[place], self._seconds[place]))

    def _ended(self, place: int, outcome: Outcome) -> tuple[int, Outcome]:
        self._racing.discard(place)
        self._paused.pop(place, None)
        return place, outcome

    def _share(self) -> Callable[[int], float]:
        """What one epoch of so many runs is of the whole race, counted in whole runs of the bar."""
        halving = self.sweep[0].config.halving
        last = max(job.config.trainer.max_epochs for job in self.sweep)
        started = count = len(self._racing)
        before = total = 0
        for rung in [*(halving.rungs or []), last]:
            total += count * (rung - before)
            count, before = -(-count // halving.factor), rung
        return lambda running: running * started / total


def _value(cfg: Config, record: RunRecord) -> float:
    """What a run has reached, smaller is better."""
    best = record.progress.best_value
    return best if cfg.monitor == "val/loss" else -best


class _Earlier:
    """What runs of an earlier start had reached at a rung; read when it is first asked for."""

    def __init__(self, sweep: Sequence[Job], outcomes: Sequence[Outcome], directory: Path) -> None:
        self._sweep, self._outcomes, self._store = sweep, outcomes, RunStore(directory)
        self._curves: dict[int, list[float]] = {}

    def value(self, place: int, epochs: int) -> float:
        """Smaller is better; infinite for a run that is not done."""
        if not self._outcomes[place].is_done:
            return math.inf
        if place not in self._curves:
            self._curves[place] = self._read(self._sweep[place])
        sign = 1 if self._sweep[place].config.monitor == "val/loss" else -1
        reached = [sign * value for value in self._curves[place][:epochs] if math.isfinite(value)]
        return min(reached, default=math.inf)

    def _read(self, job: Job) -> list[float]:
        text = self._store.read(self._store.name_of(job.directory), file_names.METRICS)
        if text is None:
            raise UserError(f"{job.directory} has no {file_names.METRICS}; move the directory away and start again")
        return [float(row[job.config.monitor]) for row in csv.DictReader(io.StringIO(text))]


class _Epochs(Callback):
    """Moves the bar, and keeps our signal handlers in force."""

    def __init__(self, watcher: Watcher, share: Callable[[int], float]) -> None:
        self._watcher, self._share = watcher, share

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        signals.arm()  # Lightning has just put its own handler for SIGTERM over ours

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        assert isinstance(module, StackModule)
        self._watcher.epoch(self._share(len(module.configs)))
