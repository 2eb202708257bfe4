"""The jobs of a sweep to their outcomes: the seam between Hydra's side of a sweep and ours."""

from collections.abc import Sequence
from pathlib import Path

from mlpexp.sweep.conduct import conduct
from mlpexp.sweep.jobs import Job, Outcome
from mlpexp.sweep.screen import Screen


def train_jobs(jobs: Sequence[Job], directory: Path) -> list[Outcome]:
    """Train every job and write the sweep's table into `directory`; one that raises does not stop the others.

    Raises:
        Interrupted: stopped from outside.
    """
    return conduct(jobs, directory, Screen())
