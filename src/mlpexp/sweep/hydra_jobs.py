"""Hydra's part of each run of a sweep: callbacks, `run_job`, the returned `JobReturn`, and its three files."""

import logging
import os
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobRuntime, JobStatus, env_override, run_job
from hydra.experimental.callback import Callback
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from mlpexp.config.compose import Composer, hydra_config, without_hydra
from mlpexp.runtime.errors import RunsFailed
from mlpexp.store import atomic_files
from mlpexp.store.file_names import OF_HYDRA
from mlpexp.store.run_directory import Result
from mlpexp.sweep.jobs import Job, Outcome

log = logging.getLogger(__name__)


class HydraCalls:
    """Hydra's callbacks around each job of a sweep, and its own way to run one."""

    def __init__(self, context: HydraContext, task_function: TaskFunction, composer: Composer) -> None:
        self._context, self._task_function, self._composer = context, task_function, composer
        self.has_job_callbacks = any(
            getattr(type(callback), event, None) not in (None, getattr(Callback, event))
            for callback in context.callbacks.callbacks
            for event in ("on_job_start", "on_job_end")
        )
        """whether Hydra has callbacks for the start or the end of every job"""

    def on_job_start(self, job: Job) -> None:
        cfg = job.hydra(job.spec)
        with hydra_config(cfg), env_override(job.env_set):
            self._context.callbacks.on_job_start(config=cfg, task_function=self._task_function)

    def on_job_end(self, job: Job, ended: JobReturn) -> None:
        cfg = job.hydra(job.spec)
        with hydra_config(cfg):
            self._context.callbacks.on_job_end(config=cfg, job_return=ended)

    def run_job(self, job: Job) -> JobReturn:
        """Hydra's own way to run a job, from its configuration to its return."""

        def task(cfg: DictConfig) -> Any:
            try:
                return self._task_function(cfg)
            except SystemExit as error:  # would end the sweep without a message
                raise RuntimeError(f"SystemExit: {error}") from error

        ended = run_job(
            hydra_context=self._context,
            task_function=task,
            config=self._composer.full_config(job.spec),
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )
        error = ended._return_value
        if ended.status == JobStatus.FAILED:
            reason = str(error).partition("\n")[0]
            log.error("failed: %s: %s: %s", job.output_dir, type(error).__name__, reason)
        return ended


class StackedReturn(JobReturn):
    """What a run that trained in a stack returns to Hydra.

    Properties are computed on access: a configuration takes 150 KiB, and few sweepers read more than return values.

    Args:
        failures: a sentence on all runs of the sweep that failed.
        working_dir: in which the sweep was trained.
    """

    __slots__ = ("_failures", "_job", "_outcome", "_working_dir")

    def __init__(self, job: Job, outcome: Outcome, failures: str, working_dir: str) -> None:
        self._job, self._outcome, self._failures, self._working_dir = job, outcome, failures, working_dir

    @property
    def result(self) -> Result | None:
        return self._outcome.result

    @property
    def directory(self) -> Path:
        return self._job.directory

    # JobReturn declares variables

    @property
    def overrides(self) -> list[str]:  # type: ignore[override]
        return list(self._job.overrides)

    @property
    def working_dir(self) -> str:  # type: ignore[override]
        return self._working_dir

    @property
    def task_name(self) -> str:  # type: ignore[override]
        return JobRuntime.instance().get("name")

    @property
    def status(self) -> JobStatus:  # type: ignore[override]
        return JobStatus.FAILED if self._outcome.error else JobStatus.COMPLETED

    @property
    def _return_value(self) -> Any:
        return self._outcome.error or (self.result.objective if self.result else None)

    @property
    def cfg(self) -> DictConfig:  # type: ignore[override]
        return without_hydra(self._job.hydra(self._job.spec))

    @property
    def hydra_cfg(self) -> DictConfig:  # type: ignore[override]
        with hydra_config(self._job.hydra(self._job.spec)):
            return HydraConfig.instance().cfg  # type: ignore[return-value]

    @property  # type: ignore[misc]
    def return_value(self) -> Any:
        """The objective; for a failed run, raise one error on all failures, because sweepers end with the first."""
        if self.status == JobStatus.FAILED:
            raise RunsFailed(self._failures) from self._return_value
        return self._return_value


def restore_hydra_files(job: Job) -> None:
    """Write those of Hydra's files again that a finished job has lost; its marker does not list them."""
    if job.output_subdir is None or job.make_files is None:
        return
    directory = job.directory / job.output_subdir
    try:
        present = set(os.listdir(directory))  # noqa: PTH208 - a finished sweep asks this of every run
    except (FileNotFoundError, NotADirectoryError):
        if not job.directory.is_dir():  # it is in the sweep's table
            return
        present = set()
    if not present.issuperset(OF_HYDRA):
        directory.mkdir(exist_ok=True)
        lost = {name: text for name, text in job.make_files(job.spec, job.output_dir).items() if name not in present}
        atomic_files.write_all(directory, lost)
