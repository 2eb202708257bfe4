"""A sweep over a grid: expand, check all runs, survey under a lock, train in stacks or by another launcher."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf

from mlpexp.config import model_checks, plugin_keys, yaml_text
from mlpexp.config.checks import refuse_keys_of_sweeps
from mlpexp.config.compose import Composer
from mlpexp.config.grid_settings import GridSettings
from mlpexp.config.launcher_settings import Settings
from mlpexp.config.overrides import RunSpec, swept_keys
from mlpexp.runtime.errors import ConfigError, RunsFailed, UserError, described
from mlpexp.runtime.terminal import counted, say
from mlpexp.store import atomic_files, directory_lock, file_names, run_directory, worker_session
from mlpexp.store.run_store import Survey
from mlpexp.sweep.checked_runs import check
from mlpexp.sweep.grid import expand
from mlpexp.sweep.hydra_jobs import StackedReturn
from mlpexp.sweep.hydra_sweep import NO_DIRECTORY, Sweep, refuse_other_application
from mlpexp.sweep.jobs import DryRun, Job
from mlpexp.sweep.sweep_console import Screen, explanation
from mlpexp.training.engine_choice import engine_of


def sweep_grid(
    settings: dict[str, Any],
    arguments: Sequence[str],
    context: HydraContext,
    config: DictConfig,
    launcher: Launcher,
) -> list[JobReturn]:
    """Train every combination of the values in `arguments` and `hydra.sweeper.params`.

    Raises:
        UserError: all that is wrong with the sweep; nothing has been written then. With `dry_run=true` its plan is
            printed instead of training.
        Interrupted: stopped by a signal.
        StorageError: the disk is full or broken.
    """
    refuse_other_application(config, "hydra/sweeper=grid")
    plugin_keys.check("sweeper", "grid", settings)
    plain: Any = OmegaConf.to_container(
        config.hydra.sweeper
    )  # not resolved: the keys of a condition are those of a run
    grid = GridSettings.read({**settings, "skip": plain.get("skip")}, config.hydra.overrides.hydra)
    sweep = getattr(launcher, "sweep", None)
    sweep = sweep if isinstance(sweep, Sweep) else None  # of another launcher
    composer = sweep.composer if sweep else Composer(context.config_loader, config)
    specs, sentence = expand(grid, arguments, composer, sweep.settings.max_runs if sweep else None)
    if sentence:
        say(sentence)
    if sweep is None:
        return _launch_elsewhere(specs, grid.max_batch_size, composer, config, launcher)
    runs = check(sweep.composer, specs, directory=sweep.directory, earlier_engine=engine_of(sweep.directory))
    _check_grid(runs, sweep.settings)
    if any(run.config.dry_run for run in runs):
        dry_run = _dry_run(sweep, runs)
        Screen().say(*dry_run.lines)
        return dry_run
    survey = _open(sweep, runs)
    swept = tuple(swept_keys([run.overrides for run in runs]))
    size = grid.max_batch_size or len(runs)
    batches = [runs[first : first + size] for first in range(0, len(runs), size)]
    return [ended for batch in batches for ended in sweep.launch(batch, survey, swept)]


def _open(sweep: Sweep, runs: Sequence[Job]) -> Survey:
    """Lock the sweep's directory and prepare it for these runs; nothing is written before the survey of all runs."""
    reserved = directory_lock.reserve(sweep.directory)
    try:
        is_new = not sweep.directory.exists()
        survey = sweep.survey(runs, same_study=True)  # another study is refused before anything is written
        tables = dict.fromkeys(model_checks.check_data(run.config) for run in runs)
        unchanged = reserved is not None and not worker_session.may_have_workers(sweep.directory)
    except BaseException:
        if reserved is not None:
            directory_lock.release(reserved)
        raise
    sweep.open(reserved)
    if is_new:
        unchanged = [path.name for path in sweep.directory.iterdir()] == [file_names.LOCK]
    for table in filter(None, tables):
        say(table)
    with sweep.hydra_logging():
        plain: Any = OmegaConf.to_container(sweep.config, enum_to_str=True)
        atomic_files.write(sweep.directory / file_names.MULTIRUN, yaml_text.block(plain))
    if not unchanged:  # another process may have written since
        survey = sweep.survey(runs, same_study=True)
    sweep.set_up(survey)
    return survey


def _check_grid(runs: Sequence[Job], settings: Settings) -> None:
    """
    Raises:
        UserError: the runs cannot be compared by halving, or need directories that the table does not give them.
    """
    needs_run_job = any(run.needs_run_job for run in runs)
    if any(run.config.halving.rungs is not None for run in runs):
        from mlpexp.sweep.successive_halving import problems  # torch: late

        lines = list(problems([run.config for run in runs], settings))
        if needs_run_job:
            lines.insert(0, "halving trains in this process, where hydra.job.chdir is not possible; leave it out")
        if lines:
            raise ConfigError(lines)
    if needs_run_job and any(run.config.record == "table" for run in runs):
        raise UserError(NO_DIRECTORY)


def _dry_run(sweep: Sweep, runs: Sequence[Job]) -> DryRun:
    """The plan of the sweep, without training."""
    from mlpexp.sweep.executor import planned  # torch: late

    survey = sweep.survey(runs, same_study=True)
    swept = tuple(swept_keys([run.overrides for run in runs]))
    jobs = {run.output_dir: run for run in runs}
    for job in runs:
        job.take_survey(survey.runs[job.output_dir], swept)
    new = [job for job in jobs.values() if job.done is None]
    plan = planned(new) if new else None
    stacks = {run: number for number, stack in enumerate(plan.stacks if plan else ()) for run in stack.runs}
    place = {id(job): number for number, job in enumerate(new)}

    def record(run: Job) -> dict[str, Any]:
        number = place.get(id(jobs[run.output_dir]))
        return {
            "run": run.number,
            "name": run_directory.name_in(sweep.directory, run.directory),
            "status": run.done.status if run.done is not None else survey.runs[run.output_dir].state.value,
            **(run.hparams if swept else {}),
            "stack": None if number is None else stacks.get(number),
            "alone": None if number is None or plan is None else plan.alone.get(number),
        }

    lines = explanation(list(jobs.values()), new, survey.sentence(), plan)
    return DryRun(sweep.directory, lines, [record(run) for run in runs])


def _launch_elsewhere(
    specs: Sequence[RunSpec], size: int | None, composer: Composer, config: DictConfig, launcher: Launcher
) -> list[JobReturn]:
    """Train the runs by a launcher of another package, which trains each run alone."""
    for run in check(composer, specs, alone=True):
        refuse_keys_of_sweeps(run.config, "leave out hydra/launcher, which trains each run alone")
    directory = Path(str(config.hydra.sweep.dir))
    directory.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(config, directory / file_names.MULTIRUN)
    texts, size = [spec.texts for spec in specs], size or len(specs)
    returns: list[JobReturn] = []
    for first in range(0, len(texts), size):
        returns += launcher.launch(texts[first : first + size], initial_job_idx=first)
    return returns


def raise_failures(returns: Sequence[JobReturn]) -> None:
    """Raises `RunsFailed`: at least one run failed."""
    failed = [ended for ended in returns if ended.status == JobStatus.FAILED]
    if not failed:
        return
    error = failed[0]._return_value
    reason = "" if isinstance(failed[0], StackedReturn) else f" ({described(error)})"  # named on the terminal already
    them = "it" if len(failed) == 1 else "them"
    raise RunsFailed(
        f"{len(failed):,} of {counted(len(returns), 'run')} failed{reason}; the same command tries {them} again"
    ) from error
