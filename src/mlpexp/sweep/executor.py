"""A sweep from checked configurations to written runs: plan, distribute, update the table, handle failures."""

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from mlpexp.config.launcher_settings import Settings
from mlpexp.config.schema import Config
from mlpexp.data.prepared_data import Prepared
from mlpexp.engine.compiled.compile_cache import load_kernels
from mlpexp.runtime import portable, signals, software_versions
from mlpexp.runtime.errors import Interrupted, StorageError, first_line, is_storage, os_error_text
from mlpexp.runtime.process_pool import missing_semaphores
from mlpexp.store import (
    failure_record,
    file_names,
    recycled_directory,
    run_table,
    run_weights,
    stack_states,
    sweep_activity,
)
from mlpexp.store.identity import identity
from mlpexp.store.results_table import Row
from mlpexp.store.run_directory import Result, Status
from mlpexp.store.run_store import RunStore
from mlpexp.store.stack_states import SavedRun
from mlpexp.sweep.backends.backend import Backend, open_backend
from mlpexp.sweep.jobs import Job, Outcome, ended_rows
from mlpexp.sweep.run_outcomes import data_of, remove_shorter
from mlpexp.sweep.successive_halving import Halving, num_epochs
from mlpexp.sweep.sweep_console import Screen
from mlpexp.sweep.sweep_progress import WHOLE_SWEEP, SweepProgress
from mlpexp.sweep.work_unit import Unit
from mlpexp.training import trainer_setup
from mlpexp.training.planner import MIN_COST, Plan, plan
from mlpexp.training.run_tracking import EndedRun, RunTracking

log = logging.getLogger(__name__)
TABLE_SHARE = 50  # training takes at least so many times as long as keeping results.csv up to date


def train_sweep(
    sweep: Sequence[Job],
    outcomes: list[Outcome],
    directory: Path,
    screen: Screen,
    settings: Settings,
    prepare: Callable[[], None] | None,
    make_backend: Callable[[Sequence[Job], Sequence[Outcome], Path], Backend] | None = None,
    tracking: RunTracking | None = None,
) -> None:
    """Train the runs that have no outcome yet and write their directories and `results.csv`.

    Args:
        outcomes: of each run; filled in place.
        settings: where to train.
        prepare: a module-level function that each worker process calls before its first unit.
        make_backend: makes the backend in place of the one that `settings` name; it may leave runs without an outcome.
        tracking: records the runs of each stack.

    Raises:
        Interrupted: stopped by a signal; finished runs are kept, the others marked, and saved where they share a stack.
        StorageError: the disk is full or broken; finished runs are kept.
    """
    remaining = [i for i, outcome in enumerate(outcomes) if not outcome.is_known]
    jobs = [sweep[i] for i in remaining]
    _warn_of_mixture(sweep, outcomes, jobs[0].config)
    progress = _Progress(sweep, outcomes, directory, screen, tracking=tracking)
    in_portions = make_backend is not None
    with signals.interruptible(), trainer_setup.quiet(), progress.recording():
        if sweep[0].config.halving.rungs is not None:
            make_backend = Halving
        if make_backend is not None:
            settings = replace(settings, backend="process", workers=None)
        division = planned(jobs, directory=directory)
        settings = _with_backend_chosen(settings, jobs, division.cost, screen)
        with open_backend(settings, directory, prepare) as chosen:
            backend = make_backend(sweep, outcomes, directory) if make_backend else chosen
            if backend.workers > 1:
                division = planned(jobs, backend.workers, directory)
            if settings.backend in ("process", "fork"):
                # before any worker process is copied from this one
                load_kernels([job.config for job in jobs], screen.warn)
            progress.units = units = _units(division, remaining, jobs, directory, single=in_portions)
            timed = units if make_backend is None else [_whole(jobs, remaining, division.cost)]
            shown = SweepProgress(timed, backend.workers, screen.hydra_files_s)
            known = [outcome for outcome in outcomes if outcome.is_known]
            with (
                screen.showing(jobs, division, shown, known),
                closing(backend.run(units, progress)) as ended,  # type: ignore[type-var]
            ):
                for run, outcome in ended:
                    progress.finished(run, outcome)
        if not in_portions:  # of runs that had fewer epochs, too
            stack_states.keep_only(directory, ())
        stack_states.clean(directory)
        recycled_directory.clean(directory)


def _units(division: Plan, places: Sequence[int], jobs: Sequence[Job], directory: Path, *, single: bool) -> list[Unit]:
    """
    Args:
        places: of the jobs in the sweep.
        single: each run is a unit: a unit is recorded when all its runs have ended, and some may not end yet.
    """

    def unit(runs: Sequence[int], **settings: Any) -> Unit:
        run_places, run_jobs = tuple(places[run] for run in runs), tuple(jobs[run] for run in runs)
        return Unit(places=run_places, jobs=run_jobs, origin=run_places[0], sweep=directory, **settings)

    units = [unit(stack.runs, cost=stack.cost, trained_share=stack.trained_share) for stack in division.stacks]
    units += [unit([run], alone=True) for run in division.alone]
    return [run for unit in units for run in unit.single_runs()] if single else units


def _whole(jobs: Sequence[Job], places: Sequence[int], cost: float) -> Unit:
    """All runs as one unit, for a backend that trains them side by side.

    Args:
        cost: of training all of them to their ends.
    """
    configs = [job.config for job in jobs]
    share = num_epochs(configs) / sum(cfg.trainer.max_epochs for cfg in configs)
    return Unit(places=tuple(places), jobs=tuple(jobs), cost=cost * share, origin=WHOLE_SWEEP)


def _warn_of_mixture(sweep: Sequence[Job], outcomes: Sequence[Outcome], cfg: Config) -> None:
    """Log one line if finished runs with the same settings had other versions, threads or processors."""
    environment = software_versions.environment(cfg.stack_threads, cfg.trainer.accelerator)
    earlier = [
        (end.result.versions, end.result.environment)
        for job, end in zip(sweep, outcomes, strict=True)
        if end.result is not None and (job.config.threads, job.config.stack) == (cfg.threads, cfg.stack)
    ]
    if warning := software_versions.environment_differences(earlier, environment):
        log.warning("%s", warning)


def planned(jobs: Sequence[Job], workers: int = 1, directory: Path | None = None) -> Plan:
    """Divide jobs into stacks; positions are indices into `jobs`.

    Args:
        directory: of the sweep, from whose saved states the runs continue.
    """
    prepared: dict[int, Prepared] = {}  # runs share the objects of their data's configuration
    data = [prepared.get(id(job.config.data)) or prepared.setdefault(id(job.config.data), data_of(job)) for job in jobs]
    saved = stack_states.saved_runs(directory) if directory is not None else {}
    epochs = None
    if saved or any(job.earlier for job in jobs):
        states = [
            saved.get(identity(job.config, part.digest)) or saved.get(job.saved_as)
            for job, part in zip(jobs, data, strict=True)
        ]
        epochs = [job.epochs_before if state is None else state.epochs for job, state in zip(jobs, states, strict=True)]
    return plan([job.config for job in jobs], data, workers=workers, epochs_done=epochs)


def _with_backend_chosen(settings: Settings, jobs: Sequence[Job], cost: float, screen: Screen) -> Settings:
    """The same settings with `backend=auto` replaced: fork where that is possible and pays at this cost, in seconds."""
    if settings.backend != "auto":
        return settings
    # devices and threads of torch do not survive a fork
    can_fork = all(job.config.trainer.accelerator == "cpu" and job.config.stack_threads == 1 for job in jobs)
    is_faster = settings.num_workers > 1 and (settings.workers is not None or cost > MIN_COST)
    if can_fork and portable.can_fork() and is_faster:
        if (reason := missing_semaphores()) is None:
            return replace(settings, backend="fork")
        screen.warn(f"worker processes need semaphores in /dev/shm ({reason}); the sweep trains in this process")
    return replace(settings, backend="process", workers=None)


@dataclass
class _Progress:
    """Keeps the screen, `results.csv`, the table of runs and the saved states up to date.

    As the `Watcher` of a backend its `progress` is called several times a second.
    """

    sweep: Sequence[Job]
    outcomes: list[Outcome]
    directory: Path
    screen: Screen
    units: Sequence[Unit] = ()
    tracking: RunTracking | None = None
    _due: float = 0.0
    _live_due: float = float("inf")

    def __post_init__(self) -> None:
        self._live_due = time.monotonic() + self.sweep[0].config.stack.save_every_s

    @contextmanager
    def recording(self) -> Iterator[None]:
        """While it lasts, an interruption or an error of the disk says what is kept; then `results.csv` is written.

        Raises:
            Interrupted, StorageError: in place of what the block raises.
        """
        try:
            try:
                yield
            except Interrupted as stop:
                kept = self._kept()
                self._mark_interrupted(first_line(stop))
                raise Interrupted(f"{stop}; {kept}, the same command carries on", stop.exit_code) from None
            finally:
                with signals.deferred():
                    sweep_activity.remove_curves(self.directory)
                    RunStore(self.directory).write_results(self._rows("interrupted"))
        except OSError as error:
            if not is_storage(error):
                raise
            raise StorageError(
                f"{os_error_text(error)}; {self._kept()}, the same command carries on once that is mended"
            ) from error

    def _kept(self) -> str:
        done = sum(outcome.is_done for outcome in self.outcomes)
        saved = stack_states.saved_runs(self.directory)
        others = f", {len(saved):,} more are saved with their epochs so far" if saved else ""
        return f"{done:,} of {len(self.outcomes):,} runs are done and kept{others}"

    def _mark_interrupted(self, reason: str) -> None:
        """Give the runs without a result the status `interrupted`, for the table."""
        saved = stack_states.saved_runs(self.directory)
        for place, (job, outcome) in enumerate(zip(self.sweep, self.outcomes, strict=True)):
            if outcome.result is None:
                result = _unfinished(job, "interrupted", reason, saved)
                if not result.epochs and not (job.directory / file_names.RESULT).exists():
                    result = replace(result, message=f"{reason} before it began")
                self.outcomes[place] = Outcome(result=result)

    def warn(self, line: str) -> None:
        self.screen.warn(line)

    def progress(self, unit: int, trained: float, written: int = 0, seconds: float | None = None) -> None:
        self.screen.progress(unit, trained, written, seconds)
        if time.monotonic() > max(self._live_due, self._due):
            self._live_due = time.monotonic() + self.sweep[0].config.stack.save_every_s
            self._write_table()

    def finished(self, place: int, outcome: Outcome) -> None:
        """Keep the outcome of a run that has ended; with the last run of a unit, record the unit."""
        unit = self._unit_of[place]
        self.outcomes[place] = outcome
        self.screen.finished(unit.origin, outcome)
        self._unended[unit.origin] -= 1
        if not self._unended[unit.origin]:
            self._unit_finished(unit)

    @cached_property
    def _unit_of(self) -> dict[int, Unit]:
        return {place: unit for unit in self.units for place in unit.places}

    @cached_property
    def _unended(self) -> dict[int, int]:
        """The number of runs of each unit that have not ended, by its origin."""
        return {unit.origin: len(unit.places) for unit in self.units}

    def _unit_finished(self, unit: Unit) -> None:
        """Record a unit whose runs have all ended: table, trackers, saved states."""
        ended = [(self.sweep[i], self.outcomes[i], self.outcomes[i].files) for i in unit.places]
        if self.sweep[unit.places[0]].config.record == "table":
            self._record(unit.places)
        if self.tracking is not None:  # after the table: what is tracked is on the disk
            self.tracking.record(
                EndedRun(config=job.config, directory=job.directory, result=outcome.result, files=files)
                for job, outcome, files in ended
                if outcome.result is not None and outcome.is_done
            )
        stack_states.remove(self.directory, (end.result.identity for end in self.outcomes if end.result))
        if time.monotonic() > self._due:
            self._write_table()

    def _write_table(self) -> None:
        """Write `results.csv`; for a large sweep that may take longer than a stack, so it is not done for each."""
        started = time.monotonic()
        RunStore(self.directory).write_results(self._rows("running", stack_states.saved_runs(self.directory)))
        now = time.monotonic()
        self._due = now + TABLE_SHARE * (now - started)

    def _rows(self, status: Status, saved: Mapping[str, SavedRun] | None = None) -> list[Row]:
        """The rows of runs that have ended, and with `status` those that have not but have trained epochs."""
        shown = list(self.outcomes)
        if saved or any(job.earlier for job in self.sweep):
            for place, (job, outcome) in enumerate(zip(self.sweep, self.outcomes, strict=True)):
                if not outcome.is_known:
                    result = _unfinished(job, status, "", saved or {})
                    shown[place] = Outcome(result=result if result.epochs else None)
        return ended_rows(self.sweep, shown, self.directory)

    def _record(self, places: Sequence[int]) -> None:
        store = RunStore(self.directory)
        ended = [(store.name_of(self.sweep[i].directory), self.outcomes[i]) for i in places]
        weighted = [outcome for _, outcome in ended if outcome.files is not None and outcome.weights is not None]
        entries = run_weights.append(self.directory, [outcome.weights for outcome in weighted if outcome.weights])
        for outcome, entry in zip(weighted, entries, strict=True):
            outcome.files = {**(outcome.files or {}), file_names.WEIGHTS: entry}
        run_table.append(self.directory, [(name, end.files) for name, end in ended if end.files is not None])
        for place in places:
            outcome = self.outcomes[place]
            if outcome.files is not None:
                remove_shorter(self.sweep[place])
            outcome.files = outcome.weights = None  # memory: the stack's, not the sweep's


def _unfinished(job: Job, status: Status, message: str, saved: Mapping[str, SavedRun]) -> Result:
    """The result of a run that has not ended, with the metrics of its last saved epoch."""
    result = failure_record.unfinished(job.config, status, message)
    if (run := saved.get(result.identity) or saved.get(job.saved_as)) is None:
        if job.earlier is None or job.earlier.result is None:
            return result
        shorter = job.earlier.result  # it stays until the longer run is written
        return replace(result, metrics=shorter.metrics, epochs=shorter.epochs, epoch=shorter.epoch)
    metrics = {name: math.nan if value is None else value for name, value in run.metrics.items()}
    return replace(result, metrics=metrics, epochs=run.epochs, epoch=run.epochs - 1)
