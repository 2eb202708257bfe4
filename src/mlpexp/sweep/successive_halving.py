"""Successive halving: all runs of a sweep start together, and after each rung the best of them continue.

Jamieson and Talwalkar, "Non-stochastic best arm identification and hyperparameter optimization" (2016).
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from mlpexp.config.launcher_settings import Settings
from mlpexp.config.schema import Config
from mlpexp.nn.metric_columns import columns, higher_is_better
from mlpexp.nn.metrics import recorded
from mlpexp.runtime.declared_options import Options
from mlpexp.sweep.backends.backend import Watcher
from mlpexp.sweep.jobs import Job, Outcome
from mlpexp.sweep.paused_runs import PausedRuns, cannot_pause
from mlpexp.sweep.sweep_progress import WHOLE_SWEEP
from mlpexp.sweep.work_unit import Unit


def problems(configs: Sequence[Config], settings: Settings) -> Iterator[str]:
    """Why these runs cannot be compared by halving, one line per reason."""
    if any(cfg.halving != configs[0].halving for cfg in configs):
        yield "halving.* is one setting for the whole sweep, whose runs are compared; give each key one value"
    if any(cfg.monitor != configs[0].monitor for cfg in configs):
        yield "halving compares all runs by one metric; give monitor one value"
    losses = {(cfg.loss_function.name, cfg.loss.delta, Options(cfg.loss.options)) for cfg in configs}
    if len(losses) > 1 and configs[0].monitor == "val/loss":
        metric = columns("val", names=recorded(configs[0].data.learns))[-1]
        yield f"halving compares all runs, and values of several losses cannot be compared; set e.g. monitor={metric}"
    yield from cannot_pause(configs, settings, "halving")


def ranked(values: Mapping[int, float]) -> list[int]:
    """The keys of `values` from best to worst: smaller is better, NaN comes last, ties by key."""
    return sorted(values, key=lambda place: (math.inf if math.isnan(values[place]) else values[place], place))


def num_epochs(configs: Sequence[Config]) -> int:
    """The epochs of all runs that start together, with those of stopped runs up to their rungs."""
    halving, count = configs[0].halving, len(configs)
    previous_rung = total = 0
    for rung in [*(halving.rungs or []), max(cfg.trainer.max_epochs for cfg in configs)]:
        total += count * (rung - previous_rung)
        count, previous_rung = -(-count // halving.factor), rung
    return total


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

    def run(self, units: Sequence[Unit], watcher: Watcher) -> Iterator[tuple[int, Outcome]]:
        places = [place for unit in units for place in unit.places]
        with PausedRuns(self.sweep, self.outcomes, self.directory, places) as paused:
            yield from self._rungs(paused, self._reporter(paused, watcher))

    def _rungs(self, paused: PausedRuns, report: Callable[[int], None]) -> Iterator[tuple[int, Outcome]]:
        halving = self.sweep[0].config.halving
        finished = cache(paused.history)  # of runs that an earlier start has finished
        candidates = set(range(len(self.sweep)))
        for rung in [*(halving.rungs or []), None]:
            yield from paused.train(sorted(paused.in_training), rung, report)
            if rung is None:
                yield from paused.write(sorted(paused.in_training))
            if not paused.in_training or rung is None:
                return
            values = {
                place: self._reached(paused.history(place) if place in paused.states else finished(place), rung)
                for place in candidates
            }
            order = ranked(values)
            candidates = set(order[: -(-len(order) // halving.factor)])
            position = {place: number for number, place in enumerate(order, 1)}
            leaving = []
            for place in sorted(paused.in_training):
                record = paused.states[place].record
                if paused.has_ended(place):
                    leaving.append(place)
                elif place not in candidates:
                    record.stop_reason = f"stopped at epoch {rung}: place {position[place]:,} of {len(order):,}"
                    leaving.append(place)
            yield from paused.write(leaving)
            if not paused.in_training:
                return

    def _reached(self, history: Sequence[Mapping[str, float]], epochs: int) -> float:
        """The best value of a run within so many epochs; smaller is better, infinite for a run without one."""
        monitor = self.sweep[0].config.monitor
        sign = -1 if higher_is_better(monitor) else 1
        values = (sign * row[monitor] for row in history[:epochs])
        return min((value for value in values if math.isfinite(value)), default=math.inf)

    def _reporter(self, paused: PausedRuns, watcher: Watcher) -> Callable[[int], None]:
        """A function that is called with the number of its runs after each epoch of a stack."""
        started = len(paused.in_training)
        total = num_epochs([self.sweep[place].config for place in paused.in_training])
        done = sum(len(state.record.history) for state in paused.states.values())

        def report(runs: int) -> None:
            nonlocal done
            done += runs
            watcher.progress(WHOLE_SWEEP, started * min(1.0, done / total))

        return report
