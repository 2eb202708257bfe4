"""The unit of work of a sweep, one stack or one run alone, and its training in any process."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from mlpexp.models import saved_states
from mlpexp.models.stack_module import StackModule
from mlpexp.models.training_state import TrainingState
from mlpexp.runtime import signals, user_code
from mlpexp.runtime.errors import Interrupted, is_storage
from mlpexp.store import atomic_files, file_names, run_directory
from mlpexp.store.identity import identity
from mlpexp.store.recycled_directory import RecycledDirectory
from mlpexp.store.weight_trajectory import WeightTrajectory
from mlpexp.store.worker_session import Gone
from mlpexp.sweep.jobs import Job, Outcome, failed
from mlpexp.sweep.live_stacks import LiveStacks
from mlpexp.sweep.run_outcomes import data_of, mark_interrupted, train_alone, write_outcome
from mlpexp.training import earlier_run
from mlpexp.training.train_stack import EpochHooks, train_stack


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """Runs that are trained together, or one that trains alone.

    Attributes:
        places: of its runs in the sweep.
        cost: estimated, of the epochs that are left, for comparing units.
        trained_share: the share of its epochs that was trained before, from 0 to 1.
        losses: workers that were lost while they worked on it.
        saved: epochs of its runs that were saved when the last of them was lost.
        origin: names it, and its parts, among the units of the sweep.
        sweep: directory in which the states of its stacks are saved; None: they are not saved.
    """

    places: tuple[int, ...]
    jobs: tuple[Job, ...]
    alone: bool = False
    cost: float = 0.0
    trained_share: float = 0.0
    losses: int = 0
    saved: int = 0
    origin: int = 0
    sweep: Path | None = None

    def packed(self) -> "Unit":
        """The same unit as plain data, for another process."""
        return replace(self, jobs=tuple(job.packed(alone=self.alone) for job in self.jobs))

    def part(self, rows: Sequence[int]) -> "Unit":
        """A unit of these rows."""
        return replace(
            self,
            places=tuple(self.places[row] for row in rows),
            jobs=tuple(self.jobs[row] for row in rows),
            cost=self.cost * len(rows) / max(1, len(self.jobs)),
        )

    def single_runs(self) -> "Iterator[Unit]":
        """Each run as a unit of its own."""
        for row, place in enumerate(self.places):
            yield replace(self.part([row]), origin=place)

    def halves(self) -> tuple["Unit", "Unit"]:
        """Two units of half the runs each; by halving, the runs that make a unit fail are found."""
        rows = range(len(self.jobs))
        return self.part(rows[: len(rows) // 2]), self.part(rows[len(rows) // 2 :])


def work(
    units: Iterable[Unit],
    report: Callable[[int, float], None] = lambda unit, runs: None,
    check: Callable[[], None] = lambda: None,
) -> Iterator[tuple[int, Outcome]]:
    """Train units in this process, and yield each run's place and outcome once its directory is written.

    An exception of a run becomes its outcome.

    Args:
        report: called with a unit's origin and the training of it that is done, counted in whole runs.
        check: raises where the training has to stop.

    Raises:
        Interrupted: stopped from outside; the runs that were under way are marked, and saved where they share a stack.
        OSError: the disk is full or broken.
    """
    for unit in units:
        try:
            if unit.alone:
                for place, job in zip(unit.places, unit.jobs, strict=True):
                    yield place, train_alone(job)
                continue
            states, done = load_states(unit), 0
            with LiveStacks(unit.sweep, unit.jobs) as live:
                for rows in _by_epoch(unit, states):
                    count = partial(_report_sum, partial(report, unit.origin), done)
                    for part, trained in train_parts(unit.part(rows), states, count, check, show=live.show):
                        if isinstance(trained, Exception):
                            yield part.places[0], failed(part.jobs[0], trained)
                        else:
                            yield from _written(part, trained)
                    done += len(rows)
        except Interrupted as stop:
            mark_interrupted(unit.jobs, stop)
            raise


def _written(unit: Unit, trained: StackModule) -> Iterator[tuple[int, Outcome]]:
    """Write each run of a trained stack, and yield its place and outcome; signals are deferred."""
    recycled = None if unit.sweep is None else RecycledDirectory(unit.sweep)
    with signals.deferred():
        for row, (place, job) in enumerate(zip(unit.places, unit.jobs, strict=True)):
            tensors = job.config.record == "run" or job.config.keep_weights
            state = trained.state(row, copy=False, tensors=tensors)
            yield place, write_outcome(job, trained.data[row], state, recycled)
        if recycled is not None:
            recycled.remove()


def train_parts(
    unit: Unit,
    states: Mapping[int, TrainingState],
    report: Callable[[float], None],
    check: Callable[[], None] = lambda: None,
    until: int | None = None,
    show: Callable[[Sequence[Job], StackModule], None] = lambda jobs, module: None,
) -> Iterator[tuple[Unit, StackModule | Exception]]:
    """Train all runs of a unit as one stack; if that raises, train its halves, down to the single runs that raise.

    Args:
        states: from which the runs continue, by their places; all runs have one, or none has.
        until: the epoch after which they pause.
        show: called with runs and their stack after each epoch.

    Returns:
        Each part with its stack, or a single run with the exception that it raises.
    """
    try:
        configs, data = [job.config for job in unit.jobs], [data_of(job) for job in unit.jobs]
        hooks = EpochHooks(
            report=report,
            check=check,
            save=None if unit.sweep is None else partial(_save, unit),
            save_every_s=configs[0].stack.save_every_s,
            show=partial(show, unit.jobs),
        )
        continued = [states[place] for place in unit.places if place in states]
        trajectories = {
            row: WeightTrajectory(job.directory, job.config.trainer.max_epochs)
            for row, job in enumerate(unit.jobs)
            if job.config.tracking.weights is not None
        }
        trained = train_stack(configs, data, hooks, states=continued, until=until, trajectories=trajectories)
    except (Interrupted, Gone):
        raise
    except Exception as error:
        if is_storage(error):
            raise
        if len(unit.jobs) == 1:
            yield unit, error
            return
        for half in unit.halves():
            yield from train_parts(half, states, report, check, until, show)
        return
    yield unit, trained


def _save(unit: Unit, module: StackModule) -> None:
    """Save the state of a stack while it trains."""
    assert unit.sweep is not None
    rows = range(len(unit.jobs))
    saved_states.save(unit.sweep, dict(zip(identities(unit), map(module.state, rows), strict=True)))
    for job, record in zip(unit.jobs, module.records, strict=True):
        if job.config.record == "run":
            job.open_directory()
            metrics = run_directory.metrics_csv(record.history)
            atomic_files.write(job.directory / file_names.METRICS, metrics)


def load_states(unit: Unit) -> dict[int, TrainingState]:
    """The states from which runs of a unit continue, by place: saved ones, or those at the end of a shorter run."""
    if unit.sweep is None:
        return {}
    states: dict[int, TrainingState] = {}
    if (unit.sweep / file_names.STATES).is_dir():
        names = identities(unit)
        # a worker that was lost may have saved more than the survey has found
        pairs = [
            (name, job)
            for current, job in zip(names, unit.jobs, strict=True)
            for name in (current, job.saved_as)
            if name
        ]
        saved = saved_states.load(unit.sweep, {name: (job.config, data_of(job)) for name, job in pairs})
        for place, name, job in zip(unit.places, names, unit.jobs, strict=True):
            if (state := saved.get(name) or saved.get(job.saved_as)) is not None:
                states[place] = state
    for place, job in zip(unit.places, unit.jobs, strict=True):
        if place in states:
            continue
        state = earlier_run.continued_state(job.earlier, job.config, data_of(job), job.directory, unit.sweep)
        if state is not None:
            states[place] = state
    return states


def load_plugins(unit: Unit) -> None:
    """Import the plugins of all runs, in a process that has not composed them.

    Raises:
        UserError: one of them is not there, or has changed since the sweep began.
    """
    for plugin in dict.fromkeys(plugin for job in unit.jobs for plugin in job.config.plugins):
        user_code.load(plugin, Path.cwd())


def identities(unit: Unit) -> list[str]:
    """The identity of each run."""
    return [identity(job.config, data_of(job).digest) for job in unit.jobs]


def _report_sum(report: Callable[[float], None], done: int, runs: float) -> None:
    report(done + runs)


def _by_epoch(unit: Unit, states: Mapping[int, TrainingState]) -> Iterable[list[int]]:
    """The rows of a unit in groups of runs that have trained the same number of epochs."""
    groups: dict[int, list[int]] = defaultdict(list)
    for row, place in enumerate(unit.places):
        groups[len(states[place].record.history) if place in states else 0].append(row)
    return groups.values()
