"""Trains the runs of a sweep; for now each of them alone."""

from mlpexp import training
from mlpexp.errors import Interrupted
from mlpexp.sweep.jobs import Job, Outcome


def train_jobs(jobs: list[Job]) -> list[Outcome]:
    """Train every job; one that raises does not stop the others.

    Raises:
        Interrupted: stopped from outside.
    """
    return [_alone(job) for job in jobs]


def _alone(job: Job) -> Outcome:
    try:
        with job.surroundings():
            result = training.train(job.config, training.Job(directory=job.directory))
        return Outcome(objective=result.objective)
    except Interrupted:
        raise
    except (Exception, SystemExit) as error:
        return job.failed(error)
