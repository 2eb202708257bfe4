"""The unit of work of a sweep: one stack, or one run alone, from its jobs to their outcomes, wherever it is done."""

import json
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from lightning.pytorch import Callback

from mlpexp import data as datasets
from mlpexp.data.prepared_data import Prepared
from mlpexp.models.stack_module import StackModule
from mlpexp.runtime import signals
from mlpexp.runtime.errors import Interrupted, UserError
from mlpexp.store import file_names
from mlpexp.sweep.failure_record import failed, interrupted
from mlpexp.sweep.run_jobs import Job, Outcome
from mlpexp.sweep.train_alone import train_alone
from mlpexp.sweep.train_stack import train_stack
from mlpexp.sweep.write_runs import run_entry, write_run


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """Runs that are trained together, or one that trains alone."""

    places: tuple[int, ...]
    """of its runs in the sweep"""
    jobs: tuple[Job, ...]
    alone: bool = False
    cost: float = 0.0
    """estimated, for comparing units"""
    losses: int = 0
    """workers that were lost over it"""
    origin: int = 0
    """names it, and its pieces, among the units of the sweep"""

    def packed(self) -> "Unit":
        """The same as plain data, for another process."""
        return replace(self, jobs=tuple(job.packed(alone=self.alone) for job in self.jobs))


def work(unit: Unit, callbacks: Sequence[Callback] = ()) -> Iterator[tuple[int, Outcome]]:
    """Train a unit; each run's place and outcome once its directory is written. What a run raises stays with it.

    Args:
        callbacks: of a stack's Trainer.

    Raises:
        Interrupted: stopped from outside; the runs that were under way are marked.
        OSError: the disk is full or broken.
    """
    if unit.alone:
        for place, job in zip(unit.places, unit.jobs, strict=True):
            try:
                data_of(job)
            except UserError as error:
                yield place, failed(job, error)
            else:
                yield place, _journaled(job) if job.config.record == "table" else train_alone(job)
    else:
        yield from _together(unit.places, unit.jobs, callbacks)


def data_of(job: Job) -> Prepared:
    """
    Raises:
        UserError: the data is not what it was when the sweep began.
    """
    found = datasets.prepare(job.config.data)
    if job.data_digest and found.digest != job.data_digest:
        raise UserError(
            f"data.path={job.config.data.path} has changed since the sweep began; restore it, or start a new sweep"
        )
    return found


def _together(
    places: Sequence[int], jobs: Sequence[Job], callbacks: Sequence[Callback]
) -> Iterator[tuple[int, Outcome]]:
    """Train these runs as a stack; should that fail, find out by halves whose fault it is."""
    configs = [job.config for job in jobs]
    torch.set_num_threads(configs[0].stack.threads or configs[0].threads)  # as alone: bits depend on it
    started = time.perf_counter()
    try:
        module = train_stack(configs, [data_of(job) for job in jobs], callbacks)
    except Interrupted as stop:
        with signals.deferred():
            for job in jobs:
                if job.config.record == "run":  # no line in the journal says as much
                    interrupted(job, stop)
        raise
    except Exception as error:
        if len(jobs) == 1:
            yield places[0], failed(jobs[0], error)
            return
        half = len(jobs) // 2
        yield from _together(places[:half], jobs[:half], callbacks)
        yield from _together(places[half:], jobs[half:], callbacks)
        return
    share = (time.perf_counter() - started) / len(jobs)
    with signals.deferred():  # they are trained: whoever stops us now shall not lose them
        for row, (place, job) in enumerate(zip(places, jobs, strict=True)):
            yield place, written(module, row, job, share)


def _journaled(job: Job) -> Outcome:
    """Train alone, and take the directory away once what the journal keeps has been read; a failed run's stays."""
    job.directory.mkdir(parents=True, exist_ok=True)
    outcome = train_alone(job)
    if outcome.error is None:
        kept = (file_names.METRICS, file_names.LAYERS, file_names.RESULT)
        there = [name for name in kept if (job.directory / name).exists()]
        outcome.files = {name: (job.directory / name).read_text(encoding="utf-8") for name in there}
        outcome.files[file_names.OVERRIDES] = "".join(f"- {json.dumps(item)}\n" for item in job.overrides)
        shutil.rmtree(job.directory)
    return outcome


def written(module: StackModule, row: int, job: Job, seconds: float) -> Outcome:
    """The outcome of a run of a trained stack, once its directory is written, or what the journal will keep of it."""
    spent = {"fit": seconds, "total": seconds}
    if job.config.record == "table":
        result, files = run_entry(module, row, job.overrides, spent)
        return Outcome(result=result, files=files)
    result = write_run(module, row, job.directory, spent, job.hparams)
    if result.status in ("chance", "diverged"):
        job.note(f"[WARNING] - {result.message}\n")
    # the checksums are in the marker now, and a sweep keeps every run's result to its end
    return Outcome(result=replace(result, files={}))
