"""The unit of work of a sweep: one stack, or one run alone, from its jobs to their outcomes, in any process."""

import json
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from mlpexp import data as datasets
from mlpexp.data.prepared_data import Prepared
from mlpexp.models import saved_states
from mlpexp.models.stack_module import StackModule
from mlpexp.models.training_state import TrainingState
from mlpexp.runtime import signals, user_code
from mlpexp.runtime.errors import Interrupted, UserError, first_line, is_storage
from mlpexp.store import atomic_files, checkpoint_files, failure_record, file_names, run_directory, run_state
from mlpexp.store.identity import identity
from mlpexp.store.recycled_directory import RecycledDirectory
from mlpexp.store.run_directory import FINITE
from mlpexp.store.weight_trajectory import WeightTrajectory
from mlpexp.store.worker_session import Gone
from mlpexp.sweep.jobs import Job, Outcome, failed
from mlpexp.training import earlier_run, single_run
from mlpexp.training.stack_run_files import run_entry, tested_weights, write_run
from mlpexp.training.train_stack import EpochHooks, train_stack


def _ignore(unit: int, runs: float) -> None: ...


def _pass() -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """Runs that are trained together, or one that trains alone.

    Attributes:
        places: of its runs in the sweep.
        cost: estimated, of the epochs that are left, for comparing units.
        begun: the share of its epochs that was trained before, from 0 to 1.
        losses: workers that were lost while they worked on it.
        saved: epochs of its runs that were saved when the last of them was lost.
        origin: names it, and its parts, among the units of the sweep.
        sweep: directory in which the states of its stacks are saved; None: they are not saved.
    """

    places: tuple[int, ...]
    jobs: tuple[Job, ...]
    alone: bool = False
    cost: float = 0.0
    begun: float = 0.0
    losses: int = 0
    saved: int = 0
    origin: int = 0
    sweep: Path | None = None

    def packed(self) -> "Unit":
        """The same as plain data, for another process."""
        return replace(self, jobs=tuple(job.packed(alone=self.alone) for job in self.jobs))

    def part(self, rows: Sequence[int]) -> "Unit":
        """Some of its runs."""
        return replace(
            self,
            places=tuple(self.places[row] for row in rows),
            jobs=tuple(self.jobs[row] for row in rows),
            cost=self.cost * len(rows) / max(1, len(self.jobs)),
        )

    def single_runs(self) -> "Iterator[Unit]":
        """Each run as a unit that is named by itself."""
        for row, place in enumerate(self.places):
            yield replace(self.part([row]), origin=place)

    def halves(self) -> tuple["Unit", "Unit"]:
        """Of two or more runs: the step by which the runs that make it fail are found."""
        rows = range(len(self.jobs))
        return self.part(rows[: len(rows) // 2]), self.part(rows[len(rows) // 2 :])


def work(
    units: Iterable[Unit], report: Callable[[int, float], None] = _ignore, check: Callable[[], None] = _pass
) -> Iterator[tuple[int, Outcome]]:
    """Train units in this process; each run's place and outcome once its directory is written.

    What a run raises stays with it.

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
                    yield place, _train_alone(job)
                continue
            states, done = load_states(unit), 0
            for rows in _by_epoch(unit, states):
                count = partial(_add, partial(report, unit.origin), done)
                for part, trained in train_parts(unit.part(rows), states, count, check):
                    if isinstance(trained, Exception):
                        yield part.places[0], failed(part.jobs[0], trained)
                    else:
                        yield from _written(part, trained)
                done += len(rows)
        except Interrupted as stop:
            mark_interrupted(unit.jobs, stop)
            raise


def _written(unit: Unit, trained: StackModule) -> Iterator[tuple[int, Outcome]]:
    """The outcomes of a stack, once each run is written; a signal waits, because they are trained."""
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
    check: Callable[[], None] = _pass,
    until: int | None = None,
) -> Iterator[tuple[Unit, StackModule | Exception]]:
    """Train all runs of a unit as one stack; if that raises, its halves, and so on down to the runs that raise.

    Args:
        states: from which the runs continue, by their places; all runs have one, or none has.
        until: the epoch after which they pause.

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
            yield from train_parts(half, states, report, check, until)
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
    """The states from which runs of a unit continue, by their places: saved, or those at the end of a shorter run."""
    if unit.sweep is None:
        return {}
    found: dict[int, TrainingState] = {}
    if (unit.sweep / file_names.STATES).is_dir():
        names = identities(unit)
        # a worker that was lost may have saved more than the survey has found
        pairs = [(name, job) for own, job in zip(names, unit.jobs, strict=True) for name in (own, job.saved_as) if name]
        saved = saved_states.load(unit.sweep, {name: (job.config, data_of(job)) for name, job in pairs})
        for place, own, job in zip(unit.places, names, unit.jobs, strict=True):
            if (state := saved.get(own) or saved.get(job.saved_as)) is not None:
                found[place] = state
    for place, job in zip(unit.places, unit.jobs, strict=True):
        if place in found:
            continue
        state = earlier_run.continued_state(job.earlier, job.config, data_of(job), job.directory, unit.sweep)
        if state is not None:
            found[place] = state
    return found


def load_plugins(unit: Unit) -> None:
    """Import the plugins of all runs, in a process that has not composed them.

    Raises:
        UserError: one of them is not there, or has changed since the sweep began.
    """
    for plugin in dict.fromkeys(plugin for job in unit.jobs for plugin in job.config.plugins):
        user_code.load(plugin, Path.cwd())


def identities(unit: Unit) -> list[str]:
    """Of each run."""
    return [identity(job.config, data_of(job).digest) for job in unit.jobs]


def data_of(job: Job) -> Prepared:
    """Raises `UserError`: the data is not what it was when the sweep began."""
    found = datasets.prepare(job.config.data)
    if job.data_digest and found.digest != job.data_digest:
        raise UserError(
            f"data.path={job.config.data.path} has changed since the sweep began; restore it, or start a new sweep"
        )
    return found


def write_outcome(job: Job, data: Prepared, state: TrainingState, recycled: RecycledDirectory | None = None) -> Outcome:
    """The outcome of a run that has trained in a stack, once its directory is written, or with what the table keeps.

    Args:
        recycled: keeps the directory of the run as it was before, for the next run.
    """
    if job.config.record == "table":
        result, files = run_entry(job.config, data, state, job.overrides)
        weights = tested_weights(job.config, data, state) if job.config.keep_weights else None
        return Outcome(result=result, files=files, weights=weights if result.status in FINITE else None)
    write = None
    if recycled and job.make_files is not None:
        write = partial(_write_recycled, recycled, job)
    else:
        job.open_directory()
    result = write_run(job.config, data, state, job.directory, job.hparams, write)
    if result.message and result.status != "stopped":
        job.note(f"[WARNING] - {result.message}\n")
    _remove_shorter(job, recycled)
    # the checksums are in the marker now, and a sweep keeps every run's result to its end
    return Outcome(result=replace(result, files={}))


def _write_recycled(recycled: RecycledDirectory, job: Job, directory: Path, files: Mapping[str, bytes]) -> None:
    """Make a recycled directory the run's, with Hydra's files and its log."""
    assert job.make_files is not None
    whole = dict(files)
    for name, text in job.make_files(job.spec, job.output_dir).items():
        whole[f"{file_names.HYDRA}/{name}"] = text.encode()
    if job.log is not None:
        whole[job.log.name] = b""
    recycled.become(directory, whole)
    job.make_files = None


def _remove_shorter(job: Job, recycled: RecycledDirectory | None = None) -> None:
    """The longer run is written: what it was before is not needed any more."""
    if job.earlier is None:
        return
    aside = job.earlier.directory.parent / file_names.SET_ASIDE
    if recycled is None:
        run_state.remove_shorter(job.earlier, aside)
    else:
        recycled.take(job.earlier, aside)


def mark_interrupted(jobs: Iterable[Job], stop: Interrupted) -> None:
    """Note in the directories of runs that are not done that their training was under way."""
    with signals.deferred():
        for job in jobs:
            if job.config.record == "run" and job.make_files is None:  # the table has lines of finished runs only
                failure_record.write_marker(job.directory, job.config, "interrupted", first_line(stop))


def _add(report: Callable[[float], None], before: int, runs: float) -> None:
    report(before + runs)


def _by_epoch(unit: Unit, states: Mapping[int, TrainingState]) -> Iterable[list[int]]:
    """The rows of a unit in groups with the same number of epochs behind them."""
    groups: dict[int, list[int]] = defaultdict(list)
    for row, place in enumerate(unit.places):
        groups[len(states[place].record.history) if place in states else 0].append(row)
    return groups.values()


def _train_alone(job: Job) -> Outcome:
    """Train one job in the surroundings that Hydra promises it; what it raises stays with it."""
    job.open_directory()
    job.directory.mkdir(parents=True, exist_ok=True)
    try:
        data_of(job)
        with job.surroundings():
            continued = earlier_run.continued_alone(job.earlier, job.config, job.overrides, data_of(job), job.directory)
            cfg = job.config if continued is None else continued.cfg
            result = single_run.train(cfg, job.directory, hparams=job.hparams, continued=continued)
    except Interrupted as stop:
        failure_record.write_marker(job.directory, job.config, "interrupted", first_line(stop))
        raise
    except (Exception, SystemExit) as error:
        return failed(job, error)
    if job.config.record == "run":
        _remove_shorter(job)
        return Outcome(result=result)
    # the table keeps the small files, and a directory is kept of failed runs only
    there = [name for name in (*file_names.TABLES, file_names.RESULT) if (job.directory / name).exists()]
    files = {name: (job.directory / name).read_text(encoding="utf-8") for name in there}
    files[file_names.OVERRIDES] = "".join(f"- {json.dumps(item)}\n" for item in job.overrides)
    keeps_weights = job.config.keep_weights and result.status in FINITE
    weights = checkpoint_files.tested_checkpoint(job.directory) if keeps_weights else None
    shutil.rmtree(job.directory)
    return Outcome(result=result, files=files, weights=weights)
