"""The outcome of one run of a sweep: its files after training in a stack, its training alone, its interruption."""

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from mlpexp import data as datasets
from mlpexp.data.prepared_data import Prepared
from mlpexp.models.training_state import TrainingState
from mlpexp.runtime import signals
from mlpexp.runtime.errors import Interrupted, UserError, first_line
from mlpexp.store import checkpoint_files, failure_record, file_names, run_state, run_table
from mlpexp.store.recycled_directory import RecycledDirectory
from mlpexp.store.run_directory import FINITE
from mlpexp.sweep.jobs import Job, Outcome, failed
from mlpexp.training import earlier_run, single_run
from mlpexp.training.stack_run_files import run_entry, tested_weights, write_run


def write_outcome(job: Job, data: Prepared, state: TrainingState, recycled: RecycledDirectory | None = None) -> Outcome:
    """Write the directory of a run that has trained in a stack (or collect the files for the table); its outcome.

    Args:
        recycled: takes the directory of the shorter run, for the next run.
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
        job.append_to_log(f"[WARNING] - {result.message}\n")
    remove_shorter(job, recycled)
    # the checksums are in the marker now, and a sweep keeps every run's result to its end
    return Outcome(result=replace(result, files={}))


def _write_recycled(recycled: RecycledDirectory, job: Job, directory: Path, files: Mapping[str, bytes]) -> None:
    """Write the files of a run, those of Hydra and its log into a recycled directory."""
    assert job.make_files is not None
    contents = dict(files)
    for name, text in job.make_files(job.spec, job.output_dir).items():
        contents[f"{file_names.HYDRA}/{name}"] = text.encode()
    if job.log is not None:
        contents[job.log.name] = b""
    recycled.write_as(directory, contents)
    job.make_files = None


def remove_shorter(job: Job, recycled: RecycledDirectory | None = None) -> None:
    """Remove the shorter run from which this one was trained further, once this one is written."""
    if job.earlier is None:
        return
    aside = job.earlier.directory.parent / file_names.SET_ASIDE
    if recycled is None:
        run_state.remove_shorter(job.earlier, aside)
    else:
        recycled.take(job.earlier, aside)


def mark_interrupted(jobs: Iterable[Job], stop: Interrupted) -> None:
    """Write the marker `interrupted` into the directories of these runs."""
    with signals.deferred():
        for job in jobs:
            if job.config.record == "run" and job.make_files is None:  # the table has lines of finished runs only
                failure_record.write_marker(job.directory, job.config, "interrupted", first_line(stop))


def train_alone(job: Job) -> Outcome:
    """Train one job alone with what Hydra provides; an exception becomes its outcome."""
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
        remove_shorter(job)
        return Outcome(result=result)
    # the table keeps the small files, and a directory is kept of failed runs only
    names = [name for name in (*file_names.TABLES, file_names.RESULT) if (job.directory / name).exists()]
    files = {name: (job.directory / name).read_text(encoding="utf-8") for name in names}
    files[file_names.OVERRIDES] = run_table.overrides_text(job.overrides)
    keeps_weights = job.config.keep_weights and result.status in FINITE
    weights = checkpoint_files.tested_checkpoint(job.directory) if keeps_weights else None
    shutil.rmtree(job.directory)
    return Outcome(result=result, files=files, weights=weights)


def data_of(job: Job) -> Prepared:
    """Raises `UserError`: the data has changed since the sweep began."""
    prepared = datasets.prepare(job.config.data)
    if job.data_digest and prepared.digest != job.data_digest:
        raise UserError(
            f"data.path={job.config.data.path} has changed since the sweep began; restore it, or start a new sweep"
        )
    return prepared
