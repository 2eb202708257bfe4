"""What Hydra promises a job of a multirun, kept for jobs that are composed, checked and trained together."""

import logging
import os
import weakref
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import is_dataclass, replace
from functools import partial
from math import prod
from pathlib import Path
from typing import Any, NoReturn

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, RangeSweep
from hydra.core.utils import (
    JobReturn,
    JobRuntime,
    JobStatus,
    configure_log,
    env_override,
    run_job,
    setup_globals,
)
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mlpexp.config import checks, hydra_messages
from mlpexp.config.overrides import swept_keys
from mlpexp.config.schema import Config
from mlpexp.data import data_digest
from mlpexp.runtime.errors import ConfigError, RunsFailed, StorageError, UserError, is_storage, sentence
from mlpexp.store import atomic_files, directory_lock, worker_session
from mlpexp.store.run_state import Found
from mlpexp.store.run_store import RunStore, Survey, check_place
from mlpexp.sweep.backends.launcher_settings import Settings
from mlpexp.sweep.compose import Composed, Composer, hydra_config, without_hydra
from mlpexp.sweep.run_jobs import Ended, Job, Outcome

log = logging.getLogger(__name__)

MAX_PROBLEMS = 20  # lines that a person still reads
MAX_REFUSED = 8  # jobs that Hydra itself refuses: a tenth of a second each, and rarely for different reasons

Arguments = tuple[str, ...]
Trainer = Callable[[list[Job]], list[Outcome]]


class Sweep:
    """A sweep between Hydra's `setup` and `launch` of a launcher.

    With Hydra's basic sweeper all jobs are known from the start, and are checked before it writes anything.

    Attributes:
        in_portions: set by a sweeper of ours that looks back, with `conclude`, when all its portions are done.
        ended: the jobs of earlier portions, by their directories.

    Raises:
        UserError: what is wrong with the sweep.
    """

    def __init__(
        self,
        context: HydraContext,
        task_function: TaskFunction,
        config: DictConfig,
        max_runs: int,
        settings: Settings | None = None,
        prepare: Callable[[], None] | None = None,
    ) -> None:
        self.prepare = prepare  # called in each other process that trains
        self.settings = settings or Settings()
        self.settings.check()
        self.context = context
        self.task_function = task_function
        self.config = config
        self.composer = Composer(context.config_loader, config)
        self._checked: dict[tuple[int, Arguments], tuple[Composed, Config]] = {}
        known = _known_jobs(config, context, max_runs)
        for composed, cfg in check(self.composer, list(enumerate(known))):
            self._checked[composed.number, composed.arguments] = composed, cfg
        self.directory = Path(str(config.hydra.sweep.dir)).absolute()
        self._standing: Survey | None = None
        self.is_whole = bool(known)
        explains_itself = "optuna_sweeper" in str(config.hydra.sweeper.get("_target_"))
        if config.get("dry_run") and not self.is_whole and not explains_itself:
            raise UserError("dry_run=true shows the plan of a grid; another sweeper's runs are not known beforehand")
        self._check_halving()
        self._check_record()
        check_place(self.directory)
        if any(cfg.dry_run for _, cfg in self._checked.values()):
            self._explain()
        self.in_portions = False
        self.ended: dict[str, Ended] = {}
        lock = directory_lock.reserve(self.directory)
        try:
            if self._checked:  # another study is refused before anything is written
                standing = self._stand(list(self._checked.values()))
                _check_data(cfg for _, cfg in self._checked.values())
                if lock is not None and not worker_session.is_going_on(self.directory):
                    self._standing = standing  # nobody can change it now
            self.directory.mkdir(parents=True, exist_ok=True)
            if lock is None:
                lock = directory_lock.take(self.directory)
            else:
                directory_lock.sign(lock)
            worker_session.wait(self.directory)
        except BaseException:
            if lock is not None:
                directory_lock.release(lock)
            raise
        # until Hydra lets go of the launcher, at the latest until the process ends
        weakref.finalize(self, directory_lock.release, lock)
        # the sweeper holds the same context: what it composes to see whether it is legal, it composes with this
        context.config_loader = _Loader(self.composer, set(map(tuple, known)))  # type: ignore[assignment]

    def _stand(self, jobs: Sequence[tuple[Composed, Config]]) -> Survey:
        """Where these jobs stand; looked at anew, unless they were when the directory was locked."""
        known, self._standing = self._standing, None
        if known is not None and known.found.keys() == {composed.output_dir for composed, _ in jobs}:
            return known
        pairs = [(composed.output_dir, cfg) for composed, cfg in jobs]
        return RunStore(self.directory).survey(pairs, same_study=self.is_whole)

    def _check_halving(self) -> None:
        """
        Raises:
            ConfigError: the runs of this sweep cannot race each other.
        """
        configs = [cfg for _, cfg in self._checked.values()]
        if not self.is_whole and self.config.get("halving") and self.config.halving.get("rungs") is not None:
            raise UserError("halving compares all runs of a grid; another sweeper's are not known beforehand")
        if all(cfg.halving.rungs is None for cfg in configs):
            return
        from mlpexp.sweep.successive_halving import problems  # torch: late

        found = list(problems(configs, self.settings))
        if any(composed.needs_ordinary_way for composed, _ in self._checked.values()):
            found.insert(
                0, "halving trains in this process, where hydra.job.chdir and the like are not possible; leave them out"
            )
        if found:
            raise ConfigError(found)

    def _check_record(self) -> None:
        """
        Raises:
            UserError: a job wants the directory that the sweep is not to have.
        """
        jobs = list(self._checked.values())
        beforehand = not self.is_whole and self.config.get("record") == "table" and bool(self.config.hydra.job.chdir)
        if beforehand or any(composed.needs_ordinary_way and cfg.record == "table" for composed, cfg in jobs):
            raise UserError(
                "record=table keeps no directory per run, but hydra.job.chdir (or a log of your own) needs one; "
                "leave out one of the two"
            )

    def _explain(self) -> NoReturn:
        """Say what the sweep would do, and end."""
        from mlpexp.sweep.train_jobs import explain

        jobs = list(self._checked.values())
        standing = self._stand(jobs)
        by_place = {composed.output_dir: (composed, cfg) for composed, cfg in jobs}
        explain(
            [_job(self, composed, cfg, standing.found[place]) for place, (composed, cfg) in by_place.items()],
            standing,
        )
        raise SystemExit(0)

    def conclude(self) -> None:
        """What a person sees at the end of a sweep that came in portions."""
        from mlpexp.sweep.train_jobs import conclude

        if self.ended:
            conclude(list(self.ended.values()), self.directory)

    def checked(self, jobs: list[tuple[int, Arguments]]) -> list[tuple[Composed, Config]]:
        if all(job in self._checked for job in jobs):
            return [self._checked.pop(job) for job in jobs]
        return check(self.composer, jobs)


def launch(
    sweep: Sweep,
    job_overrides: Sequence[Sequence[str]],
    initial_job_idx: int,
    trainer: Trainer | None = None,
) -> list[JobReturn]:
    """Train a batch of jobs; what they return is in their order.

    Raises:
        UserError: all that is wrong with any of the jobs; then none is started and nothing written.
        Interrupted: stopped from outside.
        StorageError: the disk is full or broken.
    """
    setup_globals()
    hydra = sweep.config.hydra
    configure_log(hydra.hydra_logging, hydra.verbose)
    jobs = sweep.checked([(initial_job_idx + i, tuple(one)) for i, one in enumerate(job_overrides)])
    for composed, _ in jobs:
        sweep.ended.pop(composed.output_dir, None)
    if trainer is None:
        from mlpexp.sweep.train_jobs import train_jobs  # torch: late

        trainer = partial(train_jobs, directory=sweep.directory, settings=sweep.settings, prepare=sweep.prepare)
        if sweep.in_portions or sweep.ended:
            trainer = partial(trainer, earlier=list(sweep.ended.values()), in_portions=sweep.in_portions)
    try:
        returns = _run(sweep, jobs, trainer)
    except OSError as error:
        if not is_storage(error):
            raise
        raise StorageError(
            f"{sentence(error)}; finished runs are kept, the same command carries on once that is mended"
        ) from error
    finally:
        configure_log(hydra.hydra_logging, hydra.verbose)
    return returns


def check(composer: Composer, jobs: Sequence[tuple[int, Sequence[str]]]) -> list[tuple[Composed, Config]]:
    """Every job's configuration, composed and typed.

    Raises:
        ConfigError: each problem once, with the number of jobs that have it.
    """
    problems: Counter[str] = Counter()
    accepted: list[tuple[Composed, Config]] = []
    parts: dict[str, Any] = {}
    refused = looked_at = 0
    for number, arguments in jobs:
        looked_at += 1
        try:
            composed = composer.compose(arguments, number)
            cfg = checks.parse(composed.config)
            if cfg.resume is not None:
                raise UserError("resume continues one run; leave it out, or leave out -m")
            accepted.append((composed, _sharing(cfg, parts)))
        except UserError as error:
            problems.update(str(error).splitlines())
        except (HydraException, OmegaConfBaseException, ValueError) as error:
            problems[hydra_messages.hydra_sentence(error)] += 1
            refused += 1
            if refused == MAX_REFUSED:
                break
    problems.update(_missing_devices(cfg for _, cfg in accepted))
    problems.update(_shared_directories(accepted))
    if problems:
        of = f"of {looked_at:,} runs" if looked_at == len(jobs) else f"of the first {looked_at:,} runs"
        lines = [f"{text} ({count:,} {of})" if len(jobs) > 1 else text for text, count in problems.items()]
        if len(lines) > MAX_PROBLEMS:
            lines[MAX_PROBLEMS:] = [f"and {len(lines) - MAX_PROBLEMS:,} problems more"]
        raise ConfigError(lines)
    return accepted


def _sharing(cfg: Config, parts: dict[str, Any]) -> Config:
    """The same with those parts that are spelled like another run's in common: most runs differ in one of eight."""
    own = {name: value for name, value in vars(cfg).items() if is_dataclass(value)}
    # by its repr, because 0.0 and -0.0 are equal
    return replace(cfg, **{name: parts.setdefault(repr(part), part) for name, part in own.items()})


def _run(sweep: Sweep, jobs: list[tuple[Composed, Config]], trainer: Trainer) -> list[JobReturn]:
    standing = sweep._stand(jobs)
    RunStore(sweep.directory).prepare(standing)
    if told := standing.sentence():
        log.info("%s", told)
        if not sweep.in_portions:
            print(told)
    returns: dict[int, JobReturn] = {}
    swept = tuple(swept_keys([composed.overrides for composed, _ in jobs])) if sweep.is_whole else ()
    together: dict[str, Job] = {}  # by directory: equal runs are trained once
    for composed, cfg in jobs:
        found = standing.found[composed.output_dir]
        if composed.output_dir not in together and (found.result or not composed.needs_ordinary_way):
            job = _job(sweep, composed, cfg, found, swept)
            if job.done is None and cfg.record == "run":
                _write_hydra_files(composed, job)
            together[composed.output_dir] = job
        composed.forget_texts()
    repeated = sum(composed.output_dir in together for composed, _ in jobs) - len(together)
    if repeated:
        log.warning("%d of %d runs are in the sweep twice and trained once", repeated, len(jobs))
    notify = _job_callbacks(sweep.context)
    started = [job for job in together.values() if job.done is None] if notify else []
    for job in started:
        _notify_start(sweep, job)
    outcomes = dict(zip(together, trainer(list(together.values())), strict=True)) if together else {}
    failures = sum(outcome.error is not None for outcome in outcomes.values())
    summary = f"{failures:,} of {len(outcomes):,} runs failed; the same command tries them again"
    sweep.ended |= {place: (job, outcomes[place]) for place, job in together.items()}
    for composed, _ in jobs:
        if composed.output_dir not in together:
            returns[composed.number] = _by_hydra(sweep, composed)
            continue
        job, outcome = together[composed.output_dir], outcomes[composed.output_dir]
        returns[composed.number] = _Return(sweep.composer, composed, outcome, summary, job.directory)
    for job in started:
        _notify_end(sweep, job, returns[job.number])
    return [returns[composed.number] for composed, _ in jobs]


def _job(sweep: Sweep, composed: Composed, cfg: Config, found: Found, swept: tuple[str, ...] = ()) -> Job:
    return Job(
        number=composed.number,
        overrides=composed.overrides,
        config=cfg,
        directory=found.directory,
        log=found.directory / composed.log_name if composed.log_name and cfg.record == "run" else None,
        env_set=composed.env_set,
        done=found.result,
        data_digest=data_digest.of(cfg.data),
        swept=swept,
        hydra=_placed(sweep.composer, composed),
    )


def _write_hydra_files(composed: Composed, job: Job) -> None:
    """The job's directory with the files that Hydra puts there."""
    job.directory.mkdir(parents=True, exist_ok=True)
    if composed.output_subdir is not None:
        hydra_dir = job.directory / composed.output_subdir
        hydra_dir.mkdir(parents=True, exist_ok=True)
        atomic_files.clean(hydra_dir)
        atomic_files.write(hydra_dir / "config.yaml", composed.config_yaml)
        atomic_files.write(hydra_dir / "hydra.yaml", composed.hydra_yaml)
        atomic_files.write(hydra_dir / "overrides.yaml", composed.overrides_yaml)
    if job.log is not None:
        job.log.touch()


def _by_hydra(sweep: Sweep, composed: Composed) -> JobReturn:
    """Hydra's own way to run a job, from its configuration to its return."""

    def task(cfg: DictConfig) -> Any:
        try:
            return sweep.task_function(cfg)
        except SystemExit as error:  # would end the sweep, and silently
            raise RuntimeError(f"SystemExit: {error}") from error

    ended = run_job(
        hydra_context=sweep.context,
        task_function=task,
        config=sweep.composer.config(composed.arguments, composed.number),
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
    )
    error = ended._return_value
    if ended.status == JobStatus.FAILED:
        reason = str(error).partition("\n")[0]
        log.error("failed: %s: %s: %s", composed.output_dir, type(error).__name__, reason)
    return ended


class _Return(JobReturn):
    """Makes the configurations when they are asked for: a thousand times 150 KiB that no sweeper reads."""

    def __init__(self, composer: Composer, composed: Composed, outcome: Outcome, summary: str, directory: Path) -> None:
        self._summary = summary
        self.result, self.directory = outcome.result, directory
        self._placed: Callable[[], DictConfig] = _placed(composer, composed)
        super().__init__(
            overrides=list(composed.overrides),
            working_dir=os.getcwd(),  # noqa: PTH109 - a string, as run_job's
            task_name=JobRuntime.instance().get("name"),
            status=JobStatus.FAILED if outcome.error else JobStatus.COMPLETED,
            _return_value=outcome.error or (outcome.result.objective if outcome.result else None),
        )

    @property
    def return_value(self) -> Any:
        """As Hydra's, whose sweepers end with the first failure, but without a line of its own for it."""
        if self.status == JobStatus.FAILED:
            raise RunsFailed(self._summary) from self._return_value
        return self._return_value

    @return_value.setter
    def return_value(self, value: Any) -> None:
        self._return_value = value

    @property
    def cfg(self) -> DictConfig | None:
        return without_hydra(self._placed())

    @cfg.setter
    def cfg(self, _: DictConfig | None) -> None: ...

    @property
    def hydra_cfg(self) -> DictConfig | None:
        with hydra_config(self._placed()):
            return HydraConfig.instance().cfg  # type: ignore[return-value]

    @hydra_cfg.setter
    def hydra_cfg(self, _: DictConfig | None) -> None: ...


def _placed(composer: Composer, composed: Composed) -> Callable[[], DictConfig]:
    arguments, number = composed.arguments, composed.number
    return lambda: composer.placed(arguments, number)


class _Loader:
    """Hydra's loader, except that a job's configuration costs a hundredth."""

    def __init__(self, composer: Composer, legal: set[Arguments]) -> None:
        self._composer = composer
        self._legal = legal

    def __getattr__(self, name: str) -> Any:
        return getattr(self._composer.loader, name)

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        if tuple(sweep_overrides) in self._legal:
            # only the basic sweeper's jobs are known beforehand, and it asks just to see whether this raises
            return master_config
        return self._composer.loaded(sweep_overrides)


def _known_jobs(config: DictConfig, context: HydraContext, max_runs: int) -> list[list[str]]:
    """All jobs of the sweep, where Hydra's basic sweeper makes them; of another sweeper none is known yet."""
    sweeper = config.hydra.sweeper
    if sweeper.get("_target_") != f"{BasicSweeper.__module__}.{BasicSweeper.__qualname__}":
        return []
    arguments = [f"{key}={value}" for key, value in (sweeper.params or {}).items()]
    # unresolved: an interpolation is the job's own, whose other values may differ
    arguments += OmegaConf.to_container(config.hydra.overrides.task)  # type: ignore[arg-type]
    overrides = OverridesParser.create(config_loader=context.config_loader).parse_overrides(arguments)
    counts = {
        override.get_key_element(): _num_choices(override) for override in overrides if override.is_discrete_sweep()
    }
    for override in overrides:
        if counts.get(override.get_key_element()) == 0:
            raise UserError(f"{override.input_line} names no value at all, so that the sweep would have no runs")
    if (count := prod(counts.values())) > max_runs:
        raise UserError(f"the sweep has {count:,} runs; if you mean it, add hydra.launcher.max_runs={count}")
    return BasicSweeper.split_arguments(overrides, max_batch_size=None)[0]


def _num_choices(override: Override) -> int:
    value = override.value()
    if isinstance(value, RangeSweep) and isinstance(numbers := value.range(), range):
        return len(numbers)
    return sum(1 for _ in override.sweep_string_iterator())


def _missing_devices(configs: Iterable[Config]) -> Counter[str]:
    problems: Counter[str] = Counter()
    for name, count in Counter(cfg.trainer.accelerator for cfg in configs).items():
        if name in ("cpu", "auto"):
            continue
        from mlpexp.training import single_run

        try:
            single_run.check_accelerator(name)
        except UserError as error:
            problems[str(error)] = count
    return problems


def _shared_directories(jobs: Iterable[tuple[Composed, Config]]) -> Counter[str]:
    by_directory: dict[str, list[tuple[Composed, Config]]] = defaultdict(list)
    for composed, cfg in jobs:
        by_directory[composed.output_dir].append((composed, cfg))
    return Counter(
        {
            f"different runs would write to {directory}; give each its own, e.g. "
            "hydra.sweep.subdir='${hydra.job.num}'": len(members)
            for directory, members in by_directory.items()
            if any(cfg != members[0][1] for _, cfg in members[1:])
        }
    )


def _check_data(configs: Iterable[Config]) -> None:
    """
    Raises:
        UserError: a person's own file is not what it has to be.
    """
    from mlpexp import data

    for own in {cfg.data for cfg in configs if cfg.data.name == "csv"}:
        data.prepare(own)


def _job_callbacks(context: HydraContext) -> bool:
    """Whether a callback wants to hear of every job."""
    return any(
        getattr(type(callback), event, None) not in (None, getattr(Callback, event))
        for callback in context.callbacks.callbacks
        for event in ("on_job_start", "on_job_end")
    )


def _notify_start(sweep: Sweep, job: Job) -> None:
    cfg = job.hydra()
    with hydra_config(cfg), env_override(job.env_set):
        sweep.context.callbacks.on_job_start(config=cfg, task_function=sweep.task_function)


def _notify_end(sweep: Sweep, job: Job, ended: JobReturn) -> None:
    cfg = job.hydra()
    with hydra_config(cfg):
        sweep.context.callbacks.on_job_end(config=cfg, job_return=ended)
