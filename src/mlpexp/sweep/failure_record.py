"""The marker of a run that did not come to its end: why it failed, or that it was interrupted.

Light, because a run can fail before anything heavy is imported.
"""

import math
import time
import traceback

from mlpexp import data
from mlpexp.config.hparams import chosen
from mlpexp.runtime import software_versions
from mlpexp.runtime.errors import described, first_line, is_storage
from mlpexp.store import atomic_files, file_names, run_directory
from mlpexp.store.identity import identity
from mlpexp.store.run_directory import Result, Status
from mlpexp.sweep.run_jobs import Job, Outcome


def failed(job: Job, error: BaseException) -> Outcome:
    """The outcome of a job that raised; the traceback goes into its own log and nowhere else.

    Raises:
        OSError: it was the disk's fault, which would be every other run's as well.
    """
    if is_storage(error):
        raise error
    if not isinstance(error, Exception):  # SystemExit, passed on, would end the sweep, and silently
        error = RuntimeError(f"{type(error).__name__}: {error}").with_traceback(error.__traceback__)
    job.directory.mkdir(parents=True, exist_ok=True)  # where only a table is recorded there is none until now
    job.note("".join(traceback.format_exception(error)))
    if not (job.directory / file_names.RESULT).exists() and job.config.tracking.tensorboard:
        _write_events(job, "failed", described(error))
    return Outcome(result=marked(job, "failed", described(error)), error=error)


def interrupted(job: Job, reason: BaseException) -> Result:
    """Note that training was under way."""
    return marked(job, "interrupted", first_line(reason))


def marked(job: Job, status: Status, message: str) -> Result:
    """The run's marker: its own, where its training has come as far as to write one."""
    if (job.directory / file_names.RESULT).exists():
        return run_directory.read_result(job.directory)
    result = unfinished(job, status, message)
    run_directory.write_result(job.directory, result)
    return result


def unfinished(job: Job, status: Status, message: str) -> Result:
    """What is known of a run without a history."""
    of_data = data.digest(job.config.data)
    return Result(
        status=status,
        metrics={},
        objective=math.nan,
        monitor=job.config.monitor,
        epoch=None,
        epochs=0,
        identity=identity(job.config, of_data),
        data_digest=of_data,
        seconds={"fit": 0.0, "total": 0.0},
        versions=software_versions.versions(),
        git_commit=software_versions.git_commit(),
        message=message,
    )


def _write_events(job: Job, status: Status, message: str) -> None:
    """So that TensorBoard shows the run, and that it failed."""
    from mlpexp.tracking.event_files import encode, file_name  # TensorBoard: late
    from mlpexp.tracking.run_events import run_events

    now = time.time()
    events = run_events([], chosen(job.config), {}, status, [now], note=message)
    atomic_files.write(job.directory / file_name(now), encode(events))
