"""A run of a sweep that shares no stack."""

from mlpexp.runtime.errors import Interrupted
from mlpexp.sweep.failure_record import failed, interrupted
from mlpexp.sweep.run_jobs import Job, Outcome
from mlpexp.training import single_run


def train_alone(job: Job) -> Outcome:
    """Train one job in the surroundings that Hydra promises it; what it raises stays with it.

    Raises:
        Interrupted: stopped from outside.
        OSError: the disk is full or broken.
    """
    try:
        with job.surroundings():
            result = single_run.train(job.config, single_run.Job(directory=job.directory, hparams=job.hparams))
    except Interrupted as stop:
        interrupted(job, stop)
        raise
    except (Exception, SystemExit) as error:
        return failed(job, error)
    return Outcome(result=result)
