"""A run of a sweep that shares no stack."""

from mlpexp import training
from mlpexp.errors import Interrupted
from mlpexp.sweep.jobs import Job, Outcome
from mlpexp.sweep.mark import failed, interrupted


def train_alone(job: Job) -> Outcome:
    """Train one job in the surroundings that Hydra promises it; what it raises stays with it.

    Raises:
        Interrupted: stopped from outside.
        OSError: the disk is full or broken.
    """
    try:
        with job.surroundings():
            result = training.train(job.config, training.Job(directory=job.directory, hparams=job.hparams))
    except Interrupted as stop:
        interrupted(job, stop)
        raise
    except (Exception, SystemExit) as error:
        return failed(job, error)
    return Outcome(result=result)
