"""A sweep between Hydra and the training: what Hydra promises for each job, for runs that are trained together."""

import logging
import os
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobRuntime, JobStatus, configure_log, env_override, run_job, setup_globals
from hydra.experimental.callback import Callback
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from mlpexp import data
from mlpexp.config import checks, plugin_keys, schema
from mlpexp.config.launcher_settings import Settings
from mlpexp.config.overrides import swept_keys
from mlpexp.runtime.errors import ConfigError, RunsFailed, StorageError, UserError, is_storage, sentence
from mlpexp.runtime.terminal import say
from mlpexp.store import atomic_files, directory_lock, worker_session
from mlpexp.store.run_state import Found
from mlpexp.store.run_store import RunStore, Survey, check_place
from mlpexp.sweep.check_runs import CheckedRun, check
from mlpexp.sweep.compose import ComposedRun, Composer, hydra_config, without_hydra
from mlpexp.sweep.engine_choice import engine_of
from mlpexp.sweep.grid import RunSpec
from mlpexp.sweep.run_jobs import Ended, Job, Outcome

log = logging.getLogger(__name__)


class Sweep:
    """The sweep that one command trains.

    Attributes:
        in_portions: more runs follow, so that it is not yet time for the summary; its sweeper calls `conclude`.

    Raises:
        UserError: the settings are wrong, or the application is not mlpexp.
    """

    def __init__(
        self,
        context: HydraContext,
        task_function: TaskFunction,
        config: DictConfig,
        settings: dict[str, Any],
        prepare: Callable[[], None] | None = None,
    ) -> None:
        refuse_other_application(config, "hydra/launcher=stacked")
        plugin_keys.check("launcher", "stacked", settings)
        self.context, self.task_function, self.config = context, task_function, config
        plain: Any = OmegaConf.to_container(OmegaConf.create(settings))
        self.max_runs: int = plain.pop("max_runs")
        if type(self.max_runs) is not int or self.max_runs < 1:
            raise UserError(
                f"hydra.launcher.max_runs={self.max_runs} is out of range: it must be a whole number from 1"
            )
        self.settings = Settings(**plain)
        self.settings.check()
        self.prepare = prepare  # called in each other process that trains
        self.composer = Composer(context.config_loader, config)
        self.directory = Path(str(config.hydra.sweep.dir)).absolute()
        check_place(self.directory)
        self.in_portions = False
        self._ended: dict[str, Ended] = {}  # runs of earlier portions, by their directories

    def train_grid(self, specs: Sequence[RunSpec], batch_size: int | None) -> list[JobReturn]:
        """Check all runs of a grid, then train them; nothing is written before all have passed.

        Args:
            batch_size: runs that are handed over at once; None: all.

        Raises:
            UserError: what is wrong with the sweep; with `dry_run=true` its plan is printed instead of training.
            Interrupted: stopped by a signal.
            StorageError: the disk is full or broken.
        """
        runs = check(self.composer, specs, earlier_engine=engine_of(self.directory))
        self._check_grid(runs)
        if any(run.config.dry_run for run in runs):
            self._explain(runs)
            return []
        reserved = directory_lock.reserve(self.directory)
        try:
            survey = self._survey(runs, same_study=True)  # another study is refused before anything is written
            tables = dict.fromkeys(checks.check_data(run.config) for run in runs)
            unchanged = reserved is not None and not worker_session.is_going_on(self.directory)
        except BaseException:
            if reserved is not None:
                directory_lock.release(reserved)
            raise
        self._open(reserved)
        for table in filter(None, tables):
            say(table)
        with self._hydra_logging():
            atomic_files.write(self.directory / "multirun.yaml", OmegaConf.to_yaml(self.config))
        if not unchanged:  # another process may have written since
            survey = self._survey(runs, same_study=True)
        self._prepare(survey)
        swept = tuple(swept_keys([run.composed.overrides for run in runs]))
        size = batch_size or len(runs)
        batches = [runs[first : first + size] for first in range(0, len(runs), size)]
        return [ended for batch in batches for ended in self._launch(batch, survey, swept)]

    def train_portion(self, specs: Sequence[RunSpec]) -> list[JobReturn]:
        """Train runs of a sweeper that does not know all of them beforehand.

        Raises:
            UserError: all that is wrong with any of the runs; then none is started.
            Interrupted: stopped by a signal.
            StorageError: the disk is full or broken.
        """
        runs = check(self.composer, specs, earlier_engine=engine_of(self.directory))
        survey = self._survey(runs, same_study=False)
        self._prepare(survey)
        return self._launch(runs, survey)

    def open_for_portions(self) -> None:
        """Lock the sweep's directory for a sweeper other than the grid.

        Raises:
            UserError: a setting needs a grid, or another process uses the directory.
        """
        plans_itself = self.config.hydra.sweeper.get("_target_") == plugin_keys.TARGETS["sweeper", "optuna"]
        if self.config.get("dry_run") and not plans_itself:
            raise UserError(
                "dry_run=true shows the plan of a grid; the runs of another sweeper are not known beforehand; "
                "leave out hydra/sweeper or dry_run"
            )
        if self.config.get("halving") and self.config.halving.get("rungs") is not None:
            raise UserError(
                "halving compares all runs of a grid; another sweeper's are not known beforehand; "
                "leave out hydra/sweeper or halving.rungs"
            )
        if self.config.get("record") == "table" and self.config.hydra.job.chdir:
            raise UserError(_NO_DIRECTORY)
        self._open(directory_lock.reserve(self.directory))

    def conclude(self) -> None:
        """Print the summary of a sweep that came in portions."""
        from mlpexp.sweep.train_jobs import conclude

        if self._ended:
            conclude(list(self._ended.values()), self.directory)

    def _open(self, reserved: int | None) -> None:
        """Lock the directory until Hydra releases the launcher, at the latest until the process ends."""
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            if reserved is None:
                reserved = directory_lock.take(self.directory)
            else:
                directory_lock.sign(reserved)
            worker_session.wait(self.directory)
        except BaseException:
            if reserved is not None:
                directory_lock.release(reserved)
            raise
        _releases.append(weakref.finalize(self, directory_lock.release, reserved))

    def _survey(self, runs: Sequence[CheckedRun], *, same_study: bool) -> Survey:
        pairs = [(run.composed.output_dir, run.config) for run in runs]
        return RunStore(self.directory).survey(pairs, same_study=same_study)

    def _prepare(self, survey: Survey) -> None:
        """Set aside what cannot be used, and say how much is done."""
        with self._hydra_logging():
            RunStore(self.directory).prepare(survey)
            if state := survey.sentence():
                log.info("%s", state)
                if not self.in_portions:
                    say(state)

    @contextmanager
    def _hydra_logging(self) -> Iterator[None]:
        """Log as Hydra's launchers do, and turn an error of the disk into advice.

        Raises:
            StorageError: the disk is full or broken.
        """
        hydra = self.config.hydra
        configure_log(hydra.hydra_logging, hydra.verbose)
        try:
            yield
        except OSError as error:
            if not is_storage(error):
                raise
            raise StorageError(
                f"{sentence(error)}; finished runs are kept, the same command carries on once that is mended"
            ) from error
        finally:
            configure_log(hydra.hydra_logging, hydra.verbose)

    def _check_grid(self, runs: Sequence[CheckedRun]) -> None:
        """
        Raises:
            UserError: the runs cannot be compared by halving, or need directories that the table does not give them.
        """
        needs_run_job = any(run.composed.needs_run_job for run in runs)
        if any(run.config.halving.rungs is not None for run in runs):
            from mlpexp.sweep.successive_halving import problems  # torch: late

            found = list(problems([run.config for run in runs], self.settings))
            if needs_run_job:
                found.insert(0, "halving trains in this process, where hydra.job.chdir is not possible; leave it out")
            if found:
                raise ConfigError(found)
        if needs_run_job and any(run.config.record == "table" for run in runs):
            raise UserError(_NO_DIRECTORY)

    def _explain(self, runs: Sequence[CheckedRun]) -> None:
        """Print what the sweep would do."""
        from mlpexp.sweep.train_jobs import explain

        survey = self._survey(runs, same_study=True)
        unique = {run.composed.output_dir: run for run in runs}
        explain([self._job(run, survey.found[place]) for place, run in unique.items()], survey)

    def _launch(self, runs: list[CheckedRun], survey: Survey, swept: tuple[str, ...] = ()) -> list[JobReturn]:
        setup_globals()
        for run in runs:
            self._ended.pop(run.composed.output_dir, None)
        with self._hydra_logging():
            return self._train(runs, survey, swept)

    def _train(self, runs: list[CheckedRun], survey: Survey, swept: tuple[str, ...]) -> list[JobReturn]:
        jobs: dict[str, Job] = {}  # by directory: equal runs are trained once
        for run in runs:
            place, found = run.composed.output_dir, survey.found[run.composed.output_dir]
            if place not in jobs and (found.result or not run.composed.needs_run_job):
                jobs[place] = self._job(run, found, swept)
                if jobs[place].done is None and run.config.record == "run":
                    _write_hydra_files(run.composed, jobs[place])
            run.composed.forget_content()
        repeated = sum(run.composed.output_dir in jobs for run in runs) - len(jobs)
        if repeated:
            log.warning("%d of %d runs are in the sweep twice and trained once", repeated, len(runs))
        notified = [job for job in jobs.values() if job.done is None] if _hear_of_jobs(self.context) else []
        for job in notified:
            self._notify_start(job)
        outcomes = dict(zip(jobs, self._outcomes(list(jobs.values())), strict=True)) if jobs else {}
        self._ended |= {place: (job, outcomes[place]) for place, job in jobs.items()}
        failures = sum(outcome.error is not None for outcome in outcomes.values())
        summary = f"{failures:,} of {len(outcomes):,} runs failed; the same command tries them again"
        returns: dict[int, JobReturn] = {}
        for run in runs:
            place = run.composed.output_dir
            returns[run.composed.number] = (
                StackedReturn(self.composer, run.composed, outcomes[place], summary, jobs[place].directory)
                if place in jobs
                else self._run_job(run.composed)
            )
        for job in notified:
            self._notify_end(job, returns[job.number])
        return [returns[run.composed.number] for run in runs]

    def _outcomes(self, jobs: list[Job]) -> list[Outcome]:
        from mlpexp.sweep.train_jobs import train_jobs  # torch: late

        return train_jobs(
            jobs,
            directory=self.directory,
            settings=self.settings,
            prepare=self.prepare,
            earlier=list(self._ended.values()),
            in_portions=self.in_portions,
        )

    def _job(self, run: CheckedRun, found: Found, swept: tuple[str, ...] = ()) -> Job:
        composed, cfg = run
        return Job(
            number=composed.number,
            overrides=composed.overrides,
            config=cfg,
            directory=found.directory,
            log=found.directory / composed.log_name if composed.log_name and cfg.record == "run" else None,
            env_set=composed.env_set,
            done=found.result,
            data_digest=data.digest(cfg.data),
            swept=swept,
            hydra=partial(self.composer.job_config, composed.spec),
        )

    def _run_job(self, composed: ComposedRun) -> JobReturn:
        """Hydra's own way to run a job, from its configuration to its return."""

        def task(cfg: DictConfig) -> Any:
            try:
                return self.task_function(cfg)
            except SystemExit as error:  # would end the sweep without a message
                raise RuntimeError(f"SystemExit: {error}") from error

        ended = run_job(
            hydra_context=self.context,
            task_function=task,
            config=self.composer.full_config(composed.spec),
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )
        error = ended._return_value
        if ended.status == JobStatus.FAILED:
            reason = str(error).partition("\n")[0]
            log.error("failed: %s: %s: %s", composed.output_dir, type(error).__name__, reason)
        return ended

    def _notify_start(self, job: Job) -> None:
        cfg = job.hydra()
        with hydra_config(cfg), env_override(job.env_set):
            self.context.callbacks.on_job_start(config=cfg, task_function=self.task_function)

    def _notify_end(self, job: Job, ended: JobReturn) -> None:
        cfg = job.hydra()
        with hydra_config(cfg):
            self.context.callbacks.on_job_end(config=cfg, job_return=ended)


_releases: list[weakref.finalize] = []


@contextmanager
def directories_released() -> Iterator[None]:
    """At the end of the block, release the directories that sweeps have locked in it, if they are still locked.

    Otherwise the lock lasts as long as the `Sweep`, which Hydra's objects keep until a garbage collection.
    """
    before = len(_releases)
    try:
        yield
    finally:
        for release in _releases[before:]:
            release()
        del _releases[before:]


_NO_DIRECTORY = (
    "record=table keeps no directory per run, but hydra.job.chdir (or a log of your own) needs one; "
    "leave out one of the two"
)


def refuse_other_application(config: DictConfig, plugin: str) -> None:
    """
    Raises:
        UserError: the configuration is not one of mlpexp's, so that another function would have to be run.
    """
    if missing := [key for key in schema.defaults() if key not in config]:
        raise UserError(
            f"{plugin} trains mlpexp's networks, and this application is another one: its configuration has no "
            f"'{missing[0]}'; choose hydra/launcher=basic and hydra/sweeper=basic"
        )


class StackedReturn(JobReturn):
    """Makes the configurations when they are asked for: 150 KiB a run that few sweepers read."""

    def __init__(
        self, composer: Composer, composed: ComposedRun, outcome: Outcome, summary: str, directory: Path
    ) -> None:
        self._summary = summary
        self.result, self.directory = outcome.result, directory
        self._job_config = partial(composer.job_config, composed.spec)
        super().__init__(
            overrides=list(composed.overrides),
            working_dir=os.getcwd(),  # noqa: PTH109 - a string, as run_job's
            task_name=JobRuntime.instance().get("name"),
            status=JobStatus.FAILED if outcome.error else JobStatus.COMPLETED,
            _return_value=outcome.error or (outcome.result.objective if outcome.result else None),
        )

    @property
    def return_value(self) -> Any:
        """As Hydra's, whose sweepers end with the first failure; that is one line for all failures here."""
        if self.status == JobStatus.FAILED:
            raise RunsFailed(self._summary) from self._return_value
        return self._return_value

    @return_value.setter
    def return_value(self, value: Any) -> None:
        self._return_value = value

    @property
    def cfg(self) -> DictConfig | None:
        return without_hydra(self._job_config())

    @cfg.setter
    def cfg(self, _: DictConfig | None) -> None: ...

    @property
    def hydra_cfg(self) -> DictConfig | None:
        with hydra_config(self._job_config()):
            return HydraConfig.instance().cfg  # type: ignore[return-value]

    @hydra_cfg.setter
    def hydra_cfg(self, _: DictConfig | None) -> None: ...


def _write_hydra_files(composed: ComposedRun, job: Job) -> None:
    """The job's directory with the files that Hydra puts there."""
    job.directory.mkdir(parents=True, exist_ok=True)
    if composed.output_subdir is not None:
        directory = job.directory / composed.output_subdir
        directory.mkdir(parents=True, exist_ok=True)
        atomic_files.clean(directory)
        for name, text in composed.hydra_files().items():
            atomic_files.write(directory / name, text)
    if job.log is not None:
        job.log.touch()


def _hear_of_jobs(context: HydraContext) -> bool:
    """Whether a callback of Hydra's hears of every job."""
    return any(
        getattr(type(callback), event, None) not in (None, getattr(Callback, event))
        for callback in context.callbacks.callbacks
        for event in ("on_job_start", "on_job_end")
    )
