"""A sweep between Hydra and the training: check all runs, lock, survey, train, return to Hydra."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from hydra.core.utils import JobReturn, configure_log, setup_globals
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from mlpexp.config import plugin_keys, schema
from mlpexp.config.compose import Composer
from mlpexp.config.launcher_settings import Settings
from mlpexp.config.overrides import RunSpec
from mlpexp.runtime import signals
from mlpexp.runtime.errors import StorageError, UserError, is_storage, os_error_text
from mlpexp.runtime.terminal import counted, say
from mlpexp.store import directory_lock, worker_session
from mlpexp.store.directory_checks import check_sweep_directory
from mlpexp.store.run_store import RunStore, Survey
from mlpexp.sweep.checked_runs import check
from mlpexp.sweep.hydra_jobs import HydraCalls, StackedReturn, restore_hydra_files
from mlpexp.sweep.jobs import Job, Outcome, ended_rows
from mlpexp.sweep.sweep_console import Screen
from mlpexp.sweep.sweep_progress import SweepProgress
from mlpexp.training.engine_choice import engine_of
from mlpexp.training.run_tracking import EndedRun, RunTracking

if TYPE_CHECKING:
    from mlpexp.sweep.backends.backend import Backend

log = logging.getLogger(__name__)

MakeBackend = Callable[[Sequence[Job], Sequence[Outcome], Path], "Backend"]


class Sweep:
    """The sweep that one command trains.

    Attributes:
        search_left: given the progress of the present runs, the seconds until the end of a search that trains several
            portions and calls `conclude` for the summary; None for any other sweep.
        swept: the keys that such a search varies.

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
        self.config = config
        plain: Any = OmegaConf.to_container(OmegaConf.create(settings))
        self.settings = Settings(**plain)
        self.settings.check()
        self.prepare = prepare  # called in each other process that trains
        self.composer = Composer(context.config_loader, config)
        self.hydra = HydraCalls(context, task_function, self.composer)
        self.directory = Path(str(config.hydra.sweep.dir)).absolute()
        check_sweep_directory(self.directory)
        self.search_left: Callable[[SweepProgress], float | None] | None = None
        self.swept: tuple[str, ...] = ()
        self._ended: dict[str, tuple[Job, Outcome]] = {}  # runs of earlier portions, by their directories
        self._backend: MakeBackend | None = None
        self._tracking = RunTracking(self.directory, Path.cwd(), Screen().warn, is_sweep=True)
        self._started: set[str] = set()  # runs whose start was reported to Hydra's callbacks, by their directories

    def train_portion(self, specs: Sequence[RunSpec], backend: MakeBackend | None = None) -> list[JobReturn]:
        """Train runs of a sweeper that does not know all of them beforehand.

        Args:
            backend: of jobs, outcomes and the sweep's directory, what trains them in this process; runs that it leaves
                without an outcome come again with a later portion.

        Raises:
            UserError: all problems of all runs; no run is started then.
            Interrupted: stopped by a signal.
            StorageError: the disk is full or broken.
        """
        runs = check(self.composer, specs, directory=self.directory, earlier_engine=engine_of(self.directory))
        survey = self.survey(runs, same_study=False)
        self.set_up(survey)
        self._backend = backend
        return self.launch(runs, survey)

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
            raise UserError(NO_DIRECTORY)
        self.open(directory_lock.reserve(self.directory))

    def conclude(self) -> None:
        """Print the summary of a sweep that came in portions."""
        if self._ended:
            jobs, outcomes = zip(*self._ended.values(), strict=True)
            Screen().conclude(jobs, outcomes, self.directory)

    def open(self, reserved: int | None) -> None:
        """Lock the directory until Hydra releases the launcher, at the latest until the process ends.

        Args:
            reserved: by `directory_lock.reserve`.
        """
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
        directory_lock.release_with(self, reserved)

    def survey(self, runs: Sequence[Job], *, same_study: bool) -> Survey:
        """See `RunStore.survey`."""
        pairs = [(run.output_dir, run.config) for run in runs]
        return RunStore(self.directory).survey(pairs, same_study=same_study)

    def set_up(self, survey: Survey) -> None:
        """Set unusable directories aside, and log how many runs are done."""
        with self.hydra_logging():
            RunStore(self.directory).prepare(survey)
            if state := survey.sentence():
                log.info("%s", state)
                if self.search_left is None:
                    say(state)

    @contextmanager
    def hydra_logging(self) -> Iterator[None]:
        """Log as Hydra's launchers do, and replace an error of the disk by one with advice.

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
                f"{os_error_text(error)}; finished runs are kept, the same command carries on once that is mended"
            ) from error
        finally:
            configure_log(hydra.hydra_logging, hydra.verbose)

    def launch(self, runs: list[Job], survey: Survey, swept: tuple[str, ...] = ()) -> list[JobReturn]:
        """Train surveyed runs, and return Hydra's `JobReturn` of each, in their order.

        Args:
            swept: see `Job`.
        """
        setup_globals()
        for run in runs:
            self._ended.pop(run.output_dir, None)
        with self.hydra_logging():
            jobs, hydra_files_s = self._open_directories(runs, survey, swept or self.swept)
            repeated = sum(run.output_dir in jobs for run in runs) - len(jobs)
            if repeated:
                log.warning("%d of %d runs are in the sweep twice and trained once", repeated, len(runs))
            new = {place: job for place, job in jobs.items() if job.done is None}
            notified = new if self.hydra.has_job_callbacks else {}
            for place, job in notified.items():
                if place not in self._started:
                    self.hydra.on_job_start(job)
            self._started |= notified.keys()
            outcomes = dict(zip(jobs, self.train_jobs(list(jobs.values()), hydra_files_s), strict=True)) if jobs else {}
            self._ended |= {place: (job, outcomes[place]) for place, job in jobs.items() if outcomes[place].is_known}
            failures = sum(outcome.error is not None for outcome in outcomes.values())
            them = "it" if failures == 1 else "them"
            summary = f"{failures:,} of {counted(len(outcomes), 'run')} failed; the same command tries {them} again"
            working_dir = str(Path.cwd())
            returns = {
                run.number: StackedReturn(run, outcomes[run.output_dir], summary, working_dir)
                if run.output_dir in jobs
                else self.hydra.run_job(run)
                for run in runs
            }
            for place, job in notified.items():
                if outcomes[place].is_known:
                    self.hydra.on_job_end(job, returns[job.number])
            return [returns[run.number] for run in runs]

    def _open_directories(
        self, runs: Sequence[Job], survey: Survey, swept: tuple[str, ...]
    ) -> tuple[dict[str, Job], float | None]:
        """Write Hydra's files of the runs that are trained here, where they are needed before the training.

        Returns:
            The jobs by their directories; the median of the seconds that the files of a new run took, None without any.
        """
        jobs: dict[str, Job] = {}  # equal runs are trained once
        seconds: list[float] = []
        for run in runs:
            surveyed = survey.runs[run.output_dir]
            run.take_survey(surveyed, swept)
            if run.output_dir not in jobs and (run.done or not run.needs_run_job):
                jobs[run.output_dir] = run
                if not self.hydra.has_job_callbacks and run.opens_late(surveyed):
                    continue
                if run.config.record == "run" and run.done is not None:
                    restore_hydra_files(run)
                elif run.config.record == "run":
                    started = time.perf_counter()
                    run.open_directory()
                    seconds.append(time.perf_counter() - started)
            run.make_files = None  # so that many runs fit into memory
        return jobs, median(seconds) if seconds else None

    def train_jobs(self, jobs: list[Job], hydra_files_s: float | None) -> list[Outcome]:
        """Train every job that is not done and write the sweep's table; one that raises does not stop the others.

        Args:
            hydra_files_s: the seconds that Hydra's files of a new run took; None where none was written.
        """
        num_earlier = len(self._ended)
        outcomes = [*(end for _, end in self._ended.values()), *(Outcome(result=job.done) for job in jobs)]
        jobs = [*(job for job, _ in self._ended.values()), *jobs]
        screen = Screen(self.search_left)
        screen.hydra_files_s = hydra_files_s
        if all(end.is_known for end in outcomes):
            RunStore(self.directory).write_results(ended_rows(jobs, outcomes, self.directory))
            if self._backend is not None:
                for _ in self._backend(jobs, outcomes, self.directory).run([], screen):
                    raise AssertionError("a run that is done was trained")
        else:
            with signals.importing():
                from mlpexp.sweep.executor import train_sweep  # torch: late, a finished sweep does not need it

            train_sweep(
                jobs, outcomes, self.directory, screen, self.settings, self.prepare, self._backend, self._tracking
            )
        self._record_in_trackers(jobs, outcomes)
        if self.search_left is None:
            screen.conclude(jobs, outcomes, self.directory)
        return outcomes[num_earlier:]

    def _record_in_trackers(self, jobs: Sequence[Job], outcomes: Sequence[Outcome]) -> None:
        """Record in trackers the finished runs that they lack, of earlier commands and of one that was killed, too."""
        ended = zip(jobs, outcomes, strict=True)
        self._tracking.record(
            EndedRun(config=job.config, directory=job.directory, result=outcome.result)
            for job, outcome in ended
            if outcome.result is not None and outcome.is_done
        )
        self._tracking.close()


NO_DIRECTORY = (
    "record=table keeps no directory per run, but hydra.job.chdir (or a log of your own) needs one; "
    "leave out one of the two"
)


def refuse_other_application(config: DictConfig, plugin: str) -> None:
    """Raises `UserError`: the configuration is not one of mlpexp's, so that another function would have to be run."""
    if missing := [key for key in schema.defaults() if key not in config]:
        raise UserError(
            f"{plugin} trains mlpexp's networks, and this application is another one: its configuration has no "
            f"'{missing[0]}'; choose hydra/launcher=basic and hydra/sweeper=basic"
        )
