"""The jobs of a sweep to their outcomes: the seam between Hydra's side of a sweep and ours."""

from collections.abc import Callable, Sequence
from pathlib import Path

from mlpexp.sweep import results
from mlpexp.sweep.backends.settings import Settings
from mlpexp.sweep.jobs import Job, Outcome
from mlpexp.sweep.screen import Screen
from mlpexp.sweep.standing import Standing

DEFAULT = Settings()


def train_jobs(
    jobs: Sequence[Job],
    directory: Path,
    settings: Settings = DEFAULT,
    prepare: Callable[[], None] | None = None,
) -> list[Outcome]:
    """Train every job that is not done and write the sweep's table; one that raises does not stop the others.

    Args:
        settings: where to train.
        prepare: a function of a module, called in each other process that trains.

    Raises:
        Interrupted: stopped from outside.
    """
    screen = Screen()
    outcomes = [Outcome(result=job.done) for job in jobs]
    if all(job.done for job in jobs):
        results.write(directory, jobs, outcomes)
    else:
        from mlpexp.sweep.conduct import conduct  # torch: late, a finished sweep needs none of it

        conduct(jobs, outcomes, directory, screen, settings, prepare)
    screen.conclude(jobs, outcomes, directory)
    return outcomes


def explain(jobs: Sequence[Job], standing: Standing) -> None:
    """Print what a sweep would do: new, done, torn, failed; stacks, runs alone, time, memory."""
    from mlpexp.sweep.conduct import planned

    left = [job for job in jobs if job.done is None]
    Screen().explain(jobs, left, standing.sentence(), planned(left) if left else None)
