"""The marker of a run that has failed or was interrupted.

Light, because a run can fail before anything heavy is imported.
"""

import math
import time
import traceback
from pathlib import Path

from mlpexp import data
from mlpexp.config.hparams import chosen
from mlpexp.config.schema import Config
from mlpexp.runtime import software_versions
from mlpexp.runtime.errors import described
from mlpexp.store import atomic_files, file_names, run_directory
from mlpexp.store.identity import identity
from mlpexp.store.run_directory import Result, Status


def write_failure(directory: Path, cfg: Config, error: BaseException, log: Path | None) -> Result:
    """Mark a run that raised; the traceback goes into the run's log only.

    Args:
        log: the run's log file; None where it has none.
    """
    directory.mkdir(parents=True, exist_ok=True)  # with record=table there is none until now
    if log is not None:
        atomic_files.append(log, "".join(traceback.format_exception(error)))
    if not (directory / file_names.RESULT).exists() and cfg.writes_events:  # TensorBoard shows that the run failed
        from mlpexp.tracking.event_files import encode, file_name  # TensorBoard: late
        from mlpexp.tracking.run_events import run_events

        now = time.time()
        events = run_events([], chosen(cfg), {}, "failed", [now], note=described(error))
        atomic_files.write(directory / file_name(now), encode(events))
    return write_marker(directory, cfg, "failed", described(error))


def write_marker(directory: Path, cfg: Config, status: Status, message: str) -> Result:
    """Write the marker of a run, unless its training has written one; returns the run's marker."""
    if (directory / file_names.RESULT).exists():
        return run_directory.read_result(directory)
    result = unfinished(cfg, status, message)
    run_directory.write_result(directory, result)
    return result


def unfinished(cfg: Config, status: Status, message: str) -> Result:
    """The result of a run without a history."""
    digest = data.digest(cfg.data)
    return Result(
        status=status,
        metrics={},
        objective=math.nan,
        monitor=cfg.monitor,
        epoch=None,
        epochs=0,
        identity=identity(cfg, digest),
        data_digest=digest,
        seconds={"fit": 0.0, "total": 0.0},
        versions=software_versions.versions(),
        git_commit=software_versions.git_commit(),
        message=message,
    )
