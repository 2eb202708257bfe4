"""A sweep from checked configurations to directories: plan, hand out the work, keep the table, go on after failures."""

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from mlpexp.runtime import signals
from mlpexp.runtime.errors import Interrupted, StorageError, first_line, is_storage, sentence
from mlpexp.store import file_names, results_table
from mlpexp.store.run_store import RunStore
from mlpexp.sweep.backends.base import Backend, opened
from mlpexp.sweep.backends.launcher_settings import Settings
from mlpexp.sweep.failure_record import unfinished
from mlpexp.sweep.planner import Plan, plan
from mlpexp.sweep.progress_display import Screen
from mlpexp.sweep.run_jobs import Job, Outcome, ended_rows
from mlpexp.sweep.successive_halving import Race
from mlpexp.sweep.work_unit import Unit, data_of
from mlpexp.training import single_run

TABLE_SHARE = 50  # training takes at least so many times as long as keeping results.csv up to date


def conduct(
    sweep: Sequence[Job],
    outcomes: list[Outcome],
    directory: Path,
    screen: Screen,
    settings: Settings,
    prepare: Callable[[], None] | None,
) -> None:
    """Train the runs that have no outcome yet and write their directories and `results.csv`.

    Args:
        outcomes: of each run; filled in place.
        settings: where to train.
        prepare: a function of a module, called in each other process that trains.

    Raises:
        Interrupted: stopped by a signal; finished runs are kept, the others marked.
        StorageError: the disk is full or broken; finished runs are kept.
    """
    left = [i for i, outcome in enumerate(outcomes) if not outcome.is_known]
    with signals.interruptible(), single_run.Quiet():
        try:
            try:
                halved = sweep[0].config.halving.rungs is not None
                with opened(_settled(settings, [sweep[i] for i in left]), directory, prepare) as place:
                    backend = Race(sweep, outcomes, directory) if halved else place
                    division = planned([sweep[i] for i in left], backend.workers)
                    with screen.showing([sweep[i] for i in left], division):
                        _train(_units(sweep, left, division), backend, sweep, outcomes, directory, screen)
            except Interrupted as stop:
                _note_interrupted(sweep, outcomes, first_line(stop))
                raise Interrupted(f"{stop}; {_kept(outcomes)}, the same command carries on", stop.exit_code) from None
            finally:
                with signals.deferred():
                    results_table.write(directory, ended_rows(sweep, outcomes, directory))
        except OSError as error:
            if not is_storage(error):
                raise
            raise StorageError(
                f"{sentence(error)}; {_kept(outcomes)}, the same command carries on once that is mended"
            ) from error


def _kept(outcomes: Sequence[Outcome]) -> str:
    return f"{sum(outcome.is_done for outcome in outcomes):,} of {len(outcomes):,} runs are done and kept"


def _note_interrupted(sweep: Sequence[Job], outcomes: list[Outcome], reason: str) -> None:
    """For the table: the runs whose directories are marked, and those that were not begun."""
    for i, (job, outcome) in enumerate(zip(sweep, outcomes, strict=True)):
        if outcome.result is None:
            begun = (job.directory / file_names.RESULT).exists()
            message = reason if begun else f"{reason} before it began"
            outcomes[i] = Outcome(result=unfinished(job, "interrupted", message))


def _settled(settings: Settings, jobs: Sequence[Job]) -> Settings:
    """`auto` decided by the time that these jobs would take; devices and threads of torch do not survive a fork."""
    if jobs[0].config.halving.rungs is not None:  # a race is run here
        return replace(settings, backend="process", workers=None)
    if settings.backend != "auto":
        return settings
    can_fork = all(
        job.config.trainer.accelerator == "cpu" and (job.config.stack.threads or job.config.threads) == 1
        for job in jobs
    )
    return settings.settled(planned(jobs).cost, can_fork=can_fork)


def planned(jobs: Sequence[Job], workers: int = 1) -> Plan:
    """Which of these runs share stacks; positions count within `jobs`."""
    return plan([job.config for job in jobs], [data_of(job) for job in jobs], workers=workers)


def _units(sweep: Sequence[Job], left: Sequence[int], division: Plan) -> list[Unit]:
    """The stacks, then the runs alone; places count within the sweep."""

    def unit(runs: Sequence[int], *, alone: bool, cost: float = 0.0) -> Unit:
        places = tuple(left[run] for run in runs)
        return Unit(places=places, jobs=tuple(sweep[i] for i in places), alone=alone, cost=cost, origin=places[0])

    stacks = [unit(stack.runs, alone=False, cost=stack.cost) for stack in division.stacks]
    return stacks + [unit([run], alone=True) for run in division.alone]


def _train(
    units: Sequence[Unit],
    backend: Backend,
    sweep: Sequence[Job],
    outcomes: list[Outcome],
    directory: Path,
    screen: Screen,
) -> None:
    written = cost = 0.0
    unit_of = {place: unit for unit in units for place in unit.places}
    left = {unit.places: len(unit.places) for unit in units}
    with closing(backend.run(units, screen)) as ended:  # type: ignore[type-var]
        for place, outcome in ended:
            outcomes[place] = outcome
            unit = unit_of[place]
            left[unit.places] -= 1
            if not left[unit.places]:
                screen.finished(outcomes[i] for i in unit.places)
                if sweep[place].config.record == "table":
                    _journal(unit.places, sweep, outcomes, directory)
                # of a large sweep the table takes longer to write than a stack to train
                if time.perf_counter() > written + TABLE_SHARE * cost:
                    started = time.perf_counter()
                    results_table.write(directory, ended_rows(sweep, outcomes, directory))
                    written = time.perf_counter()
                    cost = written - started


def _journal(places: Sequence[int], sweep: Sequence[Job], outcomes: Sequence[Outcome], directory: Path) -> None:
    store = RunStore(directory)
    ended = [(store.name_of(sweep[i].directory), outcomes[i]) for i in places]
    store.record([(name, outcome.files) for name, outcome in ended if outcome.files is not None])
    for _, outcome in ended:
        outcome.files = None  # memory: the stack's, not the sweep's
