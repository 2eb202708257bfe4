"""`hydra/sweeper=optuna`: the search of a command, from its settings to the summary."""

from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import hydra.plugins.launcher
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf

from mlpexp.config import sweep_syntax, yaml_text
from mlpexp.config.compose import Composer
from mlpexp.config.plugin_keys import PLUGINS
from mlpexp.runtime.errors import RunsFailed, UserError
from mlpexp.runtime.terminal import counted, say
from mlpexp.store import atomic_files, directory_lock
from mlpexp.store.file_names import MULTIRUN
from mlpexp.sweep.hydra_sweep import Sweep
from mlpexp.sweep.jobs import DryRun

try:
    import optuna  # noqa: F401
except ImportError:
    raise UserError("hydra/sweeper=optuna needs the package optuna: pip install 'mlpexp[search]'") from None

from mlpexp.search import samplers, search_conditions, search_console, search_space, warm_start
from mlpexp.search.generation_search import GenerationSearch
from mlpexp.search.pruned_search import PrunedSearch
from mlpexp.search.search_plan import make_plan
from mlpexp.search.search_record import open_record
from mlpexp.search.search_time import SearchTime
from mlpexp.search.study_storage import StudyMirror


def optimise(
    settings: dict[str, Any],
    arguments: Sequence[str],
    context: HydraContext,
    config: DictConfig,
    launcher: hydra.plugins.launcher.Launcher,
) -> list[JobReturn]:
    """Search until the requested number of trials is reached.

    Raises:
        UserError: what is wrong with the space or the settings; before anything is trained.
        RunsFailed: some runs raised an error; all others are done.
        Interrupted: stopped by a signal; the same command continues.
    """
    samplers.silence_optuna()
    settings = PLUGINS["sweeper", "optuna"] | settings  # a key that was deleted on the command line has its default
    sweep = getattr(launcher, "sweep", None)
    composer = sweep.composer if isinstance(sweep, Sweep) else Composer(context.config_loader, config)
    if isinstance(settings["params"], Sequence):
        raise UserError(
            "several grids belong to hydra/sweeper=grid, and a search has one space: write hydra.sweeper.params as one "
            "mapping, and keys that matter with some values of others only in hydra.sweeper.conditions"
        )
    typed = sweep_syntax.grids(settings["params"])[0] + list(arguments)
    overrides = OverridesParser.create(config_loader=context.config_loader).parse_overrides(typed)
    space = search_space.read(overrides, seeds=settings["seeds"], first_seed=config.get("seed", 0))
    space = search_conditions.with_conditions(space, settings["conditions"])
    plan = make_plan(settings, space, composer, sweep.settings if isinstance(sweep, Sweep) else None)
    directory = Path(str(config.hydra.sweep.dir)).absolute()
    if plan.config.dry_run:
        lines = search_console.explanation(plan)
        for line in lines:
            say(line)
        return DryRun(directory, lines)
    directory.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        if not isinstance(sweep, Sweep):  # which has locked the directory
            stack.enter_context(directory_lock.hold(directory))
        mirror = stack.enter_context(closing(StudyMirror(settings["storage"], directory, plan.names)))
        find_known = partial(warm_start.read, plan.warm_start, space, plan.names, composer)
        record, warning = open_record(directory, plan.asked, mirror.earlier(), find_known)
        plan = replace(plan, num_trials=max(plan.num_trials, record.num_trials))
        if settings["final_seeds"] is None and not record.search.confirms:
            plan = replace(plan, final_seeds=None)
        mirror.claim(record.search)
        for line in filter(None, (warning, mirror.warning)):
            say(line, error=True)
        plain: Any = OmegaConf.to_container(config, enum_to_str=True)
        atomic_files.write(directory / MULTIRUN, yaml_text.block(plain))
        search_class = GenerationSearch if plan.pruning is None else PrunedSearch
        search = search_class(plan=plan, record=record, mirror=mirror, composer=composer, launcher=launcher)
        if isinstance(sweep, Sweep):
            sweep.swept = tuple(dict.fromkeys([*space.varied, *(["seed"] if plan.final_seeds else [])]))
            sweep.search_left = SearchTime(search.study, plan.num_trials + len(record.search.known)).seconds_left
        say(search_console.description(plan, record.num_trials))
        search.run()
        finalists = search.train_finalists(plan.final_seeds) if plan.final_seeds else []
    search_console.conclude(search.own_study(), plan, directory, search.places, finalists)
    if isinstance(sweep, Sweep):
        sweep.conclude()
    if search.num_failed:
        them = "it" if search.num_failed == 1 else "them"
        raise RunsFailed(f"{counted(search.num_failed, 'trial')} failed; the same command tries {them} again")
    return search.returns
