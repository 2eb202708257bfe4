"""The runs of a sweep, composed and checked before any is trained."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError

from mlpexp.config import checks, hydra_messages
from mlpexp.config.compose import Composer
from mlpexp.config.composed_run import ComposedRun, HydraRun
from mlpexp.config.overrides import RunSpec, shell_word
from mlpexp.config.plain_config import Plain
from mlpexp.config.schema import Config
from mlpexp.runtime.errors import ConfigError, UserError
from mlpexp.store.directory_checks import outside_of
from mlpexp.sweep.jobs import Job
from mlpexp.tracking.trackers import NONE
from mlpexp.training.engine_choice import with_engine

MAX_CHECKED = 4096  # configurations that are recognised when they come again, but for the seed
MAX_PROBLEMS = 20  # lines that are printed
MAX_REFUSED = 8  # runs that Hydra refuses: a tenth of a second each, and rarely for different reasons


def check(
    composer: Composer,
    specs: Sequence[RunSpec],
    *,
    directory: Path | None = None,
    alone: bool = False,
    earlier_engine: str | None = None,
) -> list[Job]:
    """Compose and check every run, and choose its engine.

    Args:
        directory: of the sweep, where all runs have their directories.
        alone: whether every run trains alone.
        earlier_engine: of this sweep's first start, see `engine_choice.with_engine`.

    Raises:
        ConfigError: each problem once, with the number of runs that have it.
    """
    problems: Counter[str] = Counter()
    jobs: list[Job] = []
    sections: dict[str, Any] = {}
    # by all but the seed, on which no check of several keys depends; with the objects that the key is made of
    checked: dict[tuple[object, ...], tuple[Config, Plain]] = {}
    job_config = composer.job_config  # one object for all runs
    refused = examined = 0
    for spec in specs:
        examined += 1
        try:
            run = composer.compose(spec)
            key, plain = run.alike or _all_but_the_seed(run), run.config
            cfg = _with_seed(checked[key][0], plain.get("seed")) if key in checked else None
            if cfg is None:
                cfg = checks.parse(plain, Path.cwd)
                cfg = with_engine(cfg, alone=alone or run.needs_run_job, earlier=earlier_engine)
                if cfg.resume is not None:
                    raise UserError("resume continues one run; leave it out, or leave out -m")
                cfg = _with_shared_sections(cfg, sections)
                if len(checked) >= MAX_CHECKED:
                    checked.clear()
                checked[key] = cfg, plain
            jobs.append(_job(run, cfg, job_config))
        except UserError as error:
            problems.update(str(error).splitlines())
        except (HydraException, OmegaConfBaseException, ValueError) as error:
            problems[hydra_messages.hydra_sentence(error)] += 1
            refused += 1
            if refused == MAX_REFUSED:
                break
    place = None if directory is None else outside_of(directory, (job.output_dir for job in jobs))
    if directory is not None and place is not None:
        if not composer.has_fixed_directory:  # a swept experiment has a name of its own, say
            composer.fix_directory(directory)
            return check(composer, specs, directory=directory, alone=alone, earlier_engine=earlier_engine)
        problems[f"a run would be written to {place}, outside of {directory}; correct hydra.sweep.subdir"] += 1
    problems.update(_missing_devices(job.config for job in jobs))
    problems.update(_several_trackers(jobs) or _shared_directories(jobs))
    if problems:
        raise ConfigError(_lines(problems, examined, len(specs)))
    return jobs


def _with_shared_sections(cfg: Config, sections: dict[str, Any]) -> Config:
    """The same configuration; sections that equal another run's are replaced by its objects, which saves memory."""
    equal = {}
    for field in fields(cfg):
        section = getattr(cfg, field.name)
        if is_dataclass(section):  # compared by their repr, because 0.0 and -0.0 are equal
            equal[field.name] = sections.setdefault(repr(section), section)
    return replace(cfg, **equal)


def _lines(problems: Counter[str], examined: int, total: int) -> list[str]:
    """One line per problem, with the number of runs that have it."""
    of = f"of {examined:,} runs" if examined == total else f"of the first {examined:,} runs"
    lines = [f"{text} ({count:,} {of})" if total > 1 else text for text, count in problems.items()]
    if len(lines) > MAX_PROBLEMS:
        lines[MAX_PROBLEMS:] = [f"and {len(lines) - MAX_PROBLEMS:,} more problems"]
    return lines


_HYDRA_FIELDS = tuple(field.name for field in fields(HydraRun))


def _job(run: ComposedRun, cfg: Config, job_config: Callable[[RunSpec], DictConfig]) -> Job:
    from_hydra: dict[str, Any] = {name: getattr(run, name) for name in _HYDRA_FIELDS}
    if cfg.record != "run":
        from_hydra["log_name"] = None
    return Job(**from_hydra, config=cfg, place=run.output_dir, hydra=job_config)


def _all_but_the_seed(run: ComposedRun) -> tuple[object, ...]:
    """A key that is equal for runs which differ in their seed alone; groups of keys are compared by their objects."""
    values = ((key, value) for key, value in run.config.items() if key != "seed")
    return (
        run.needs_run_job,
        *((key, id(value) if isinstance(value, dict | list) else (type(value), value)) for key, value in values),
    )


def _with_seed(cfg: Config, seed: object) -> Config | None:
    """The same configuration with another seed; None if it is not a valid seed, so that the whole check explains it."""
    try:
        return cfg.with_seed(seed)
    except ValidationError:
        return None


def _missing_devices(configs: Iterable[Config]) -> Counter[str]:
    problems: Counter[str] = Counter()
    for name, count in Counter(cfg.trainer.accelerator for cfg in configs).items():
        if name in ("cpu", "auto"):
            continue
        from mlpexp.training import trainer_setup  # torch: late

        try:
            trainer_setup.check_accelerator(name)
        except UserError as error:
            problems[str(error)] = count
    return problems


def _several_trackers(runs: Sequence[Job]) -> Counter[str]:
    choices = dict.fromkeys(run.config.tracker for run in runs)
    if len(choices) < 2:
        return Counter()
    names = list(dict.fromkeys(name for trackers in choices for name in trackers if name != NONE))
    return Counter(
        {f"all runs of a sweep have the same trackers; several are a list: {shell_word('tracker', names)}": len(runs)}
    )


def _shared_directories(runs: Sequence[Job]) -> Counter[str]:
    configs: dict[str, Config] = {}
    shared = {
        run.output_dir
        for run in runs
        if (cfg := configs.setdefault(run.output_dir, run.config)) is not run.config and cfg != run.config
    }
    return Counter(
        f"different runs would write to {run.output_dir}; name every key in their directories: "
        "'hydra.sweep.subdir=\"${mlpexp.full_run_name:${hydra.overrides.task}}\"'"
        for run in runs
        if run.output_dir in shared
    )
