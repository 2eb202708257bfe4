"""Runs of a sweep that are trained further start where a shorter run has ended; it goes when they are written."""

import logging
from dataclasses import replace
from pathlib import Path

from mlpexp.config.overrides import parse
from mlpexp.data.data_config import FILE_KEYS
from mlpexp.data.prepared_data import Prepared
from mlpexp.models.training_state import TrainingState
from mlpexp.runtime.errors import UserError, first_line
from mlpexp.store import atomic_files, file_names, further_training, run_state
from mlpexp.store.identity import identity
from mlpexp.sweep.hydra_jobs import Job
from mlpexp.training import earlier_run, resume
from mlpexp.training.resume import Continued

log = logging.getLogger(__name__)
_DAMAGED = "%s is trained from its beginning, and what was there is set aside: %s"


def state(job: Job, data: Prepared, sweep: Path) -> TrainingState | None:
    """The state from which a run continues in a stack; None where it trains from its beginning.

    A shorter run that is damaged is set aside.
    """
    if job.earlier is None or job.earlier.result is None:
        return None
    directory = job.earlier.directory
    if job.config.tracking.diagnostics and file_names.LAYERS not in job.earlier.result.files:
        return None  # half a history of the layers could not be drawn
    keeps = job.config.tracking.weights is not None
    if keeps and file_names.WEIGHTS_BY_EPOCH not in job.earlier.result.files:
        return None
    try:
        found = earlier_run.training_state(directory, job.earlier.result, job.config, data)
        if keeps:
            kept = earlier_run.read_files(directory, job.earlier.result)[file_names.WEIGHTS_BY_EPOCH]
            atomic_files.make_directory(job.directory, parents=True)
            atomic_files.write(job.directory / file_names.WEIGHTS_BY_EPOCH, kept)
        return found
    except (UserError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        log.warning(_DAMAGED, directory, reason)
        if directory.is_dir():
            run_state.set_aside(job.earlier, sweep / file_names.SET_ASIDE)
        return None


def continued(job: Job, data: Prepared) -> Continued | None:
    """What a run that trains alone continues from, copied into its directory; None where it trains from its beginning.

    That is so where there is no shorter run, or where there is nothing to continue: it was stopped early, as the longer
    one is, or has diverged. A shorter run that is damaged is set aside.
    """
    if job.earlier is None or job.earlier.result is None or job.earlier.result.status == "diverged":
        return None
    cfg, directory, files = job.config, job.earlier.directory, dict[str, bytes]()
    given = [item for item in job.overrides if parse(item).key in _OF_FILES]
    given += [f"{further_training.EPOCHS}={cfg.trainer.max_epochs}", f"threads={cfg.threads}"]
    try:
        files = earlier_run.read_files(directory, job.earlier.result)
        if earlier_run.record(directory, files, cfg).progress.stopped:
            return None
        for name, content in files.items():
            atomic_files.make_directory((job.directory / name).parent)
            atomic_files.write(job.directory / name, content)
        found = resume.find(replace(cfg, resume=str(job.directory)), given)
        if identity(found.cfg, data.digest) != identity(cfg, data.digest):
            raise UserError("its configuration is another one than its marker says")
    except (UserError, ValueError, KeyError) as error:
        log.warning(
            "%s is trained from its beginning, and what was there is set aside: %s", directory, first_line(error)
        )
        for name in files:
            (job.directory / name).unlink(missing_ok=True)
        if directory.is_dir():
            run_state.set_aside(job.earlier, directory.parent / file_names.SET_ASIDE)
        return None
    tracking = replace(cfg.tracking, diagnostics=cfg.tracking.diagnostics and bool(found.layer_rows))
    return replace(found, cfg=replace(cfg, tracking=tracking))


_OF_FILES = {f"data.{key}" for key in FILE_KEYS}


def remove_shorter(job: Job) -> None:
    """The longer run is written: what it was before is not needed any more."""
    if job.earlier is not None:
        run_state.remove_shorter(job.earlier, job.earlier.directory.parent / file_names.SET_ASIDE)
