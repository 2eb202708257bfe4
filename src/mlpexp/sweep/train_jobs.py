"""Trains the jobs of a sweep: the interface between Hydra's side of a sweep and the executor."""

from collections.abc import Callable, Sequence
from pathlib import Path

from mlpexp.config.launcher_settings import Settings
from mlpexp.store import results_table
from mlpexp.store.run_store import Survey
from mlpexp.sweep.progress_display import Screen
from mlpexp.sweep.run_jobs import Ended, Job, Outcome, ended_rows

DEFAULT = Settings()


def train_jobs(
    jobs: Sequence[Job],
    directory: Path,
    settings: Settings = DEFAULT,
    prepare: Callable[[], None] | None = None,
    *,
    earlier: Sequence[Ended] = (),
    in_portions: bool = False,
) -> list[Outcome]:
    """Train every job that is not done and write the sweep's table; one that raises does not stop the others.

    Args:
        settings: where to train.
        prepare: a function of a module, called in each other process that trains.
        earlier: jobs of the same sweep that have ended; they are in the table.
        in_portions: more jobs follow; the summary is printed later.

    Raises:
        Interrupted: stopped by a signal.
    """
    screen = Screen(brief=in_portions)
    jobs = [*(job for job, _ in earlier), *jobs]
    outcomes = [*(end for _, end in earlier), *(Outcome(result=job.done) for job in jobs[len(earlier) :])]
    if all(end.is_known for end in outcomes):
        results_table.write(directory, ended_rows(jobs, outcomes, directory))
    else:
        from mlpexp.sweep.executor import conduct  # torch: late, a finished sweep does not need it

        conduct(jobs, outcomes, directory, screen, settings, prepare)
    if not in_portions:
        screen.conclude(jobs, outcomes, directory)
    return outcomes[len(earlier) :]


def conclude(ended: Sequence[Ended], directory: Path) -> None:
    """Print the summary of a sweep that was trained in portions."""
    Screen().conclude([job for job, _ in ended], [end for _, end in ended], directory)


def explain(jobs: Sequence[Job], survey: Survey) -> None:
    """Print what a sweep would do: new, done, damaged, failed; stacks, runs alone, memory."""
    from mlpexp.sweep.executor import planned

    left = [job for job in jobs if job.done is None]
    Screen().explain(jobs, left, survey.sentence(), planned(left) if left else None)
