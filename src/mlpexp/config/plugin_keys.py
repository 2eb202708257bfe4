"""The keys below `hydra.sweeper` and `hydra.launcher`, and what to type in place of those that do not exist."""

from collections.abc import Iterable, Mapping
from typing import Any

from mlpexp.config.grid_settings import GridSettings
from mlpexp.config.launcher_settings import Settings
from mlpexp.runtime.errors import ConfigError, did_you_mean

# kind, name -> the class and the keys with their defaults; the choices of `hydra/<kind>`
PLUGINS: dict[tuple[str, str], dict[str, Any]] = {
    # every combination of the listed values: -m seed=1,2 model.width=8,16
    ("sweeper", "grid"): {
        "_target_": "hydra_plugins.mlpexp_grid_sweeper.grid_sweeper.GridSweeper",
        **vars(GridSettings()),
    },
    # a search: -m hydra/sweeper=optuna optimizer.lr=tag(log,interval(0.001,1))
    ("sweeper", "optuna"): {
        "_target_": "hydra_plugins.mlpexp_optuna_sweeper.optuna_sweeper.OptunaSweeper",
        # tpe, gp (Gaussian process), cmaes, random, qmc (quasi-random) or grid
        "sampler": "tpe",
        # in total: the same command with more continues; null: 100, or the whole grid
        "n_trials": None,
        # trials that are chosen, and trained, together; null: an eighth, at most 20 (50 where nothing is learned)
        "batch_size": None,
        # of the sampler; runs have seeds of their own
        "seed": 0,
        # e.g. [val/acc,num_parameters]; null: the metric in monitor
        "objectives": None,
        # a trial is the mean over so many seeds, from the configuration's on; null: as the command line says
        "seeds": None,
        # at the end the five best trials train with so many further seeds, and their means decide; null: 4 from 40
        # trials on; 0: not
        "final_seeds": None,
        # median, asha, hyperband or wilcoxon: trials that are behind the others end early; null: none does
        "pruner": None,
        # of Optuna's pruner, e.g. {n_warmup_steps:3}
        "pruner_options": None,
        # keys that are searched beside some values of others only, e.g. {optimizer.momentum:{optimizer.name:sgd}}
        "conditions": None,
        # directory of an earlier sweep, from whose results the sampler learns
        "warm_start": None,
        # null: Optuna's journal file in the sweep's directory; sqlite: a database there; or an address, a file
        "storage": None,
        # the space, in the syntax of the command line
        "params": None,
    },
    # the runs of a sweep are checked together and trained in stacks
    ("launcher", "stacked"): {
        "_target_": "hydra_plugins.mlpexp_stacked_launcher.stacked_launcher.StackedLauncher",
        **vars(Settings()),
    },
}
TARGETS = {plugin: str(defaults["_target_"]) for plugin, defaults in PLUGINS.items()}
KEYS = {plugin: tuple(key for key in defaults if key != "_target_") for plugin, defaults in PLUGINS.items()}
_WORKERS = "stacks are trained at once with hydra.launcher.backend=fork hydra.launcher.workers=2"
_DIRECTION = (
    "losses are minimised and accuracies maximised; the metric is chosen with "
    "hydra/sweeper=optuna 'hydra.sweeper.objectives=[val/acc]'"
)
# what chooses among the runs of a grid, as it is typed
_OF_GRIDS = {"zip": "zip(…)", "skip": "skip=…", "limit": "limit=…"}
# how other sweepers and launchers call it
_ELSEWHERE = {
    "grid": "a grid is hydra.sweeper.params: a mapping, or a list of mappings for several grids",
    "direction": _DIRECTION,
    "directions": _DIRECTION,
    "metric": _DIRECTION,
    "study_name": "a search is named by its directory, e.g. name=search",
    "n_jobs": _WORKERS,
    "num_workers": _WORKERS,
    "max_workers": _WORKERS,
    "n_startup_trials": "the sampler has the keys hydra.sweeper.sampler and hydra.sweeper.seed only",
    "search_space": "the space is written as overrides, e.g. 'optimizer.lr=tag(log,interval(0.001,1))'",
    "partition": "settings of Slurm stand below slurm, e.g. +hydra.launcher.slurm.slurm_partition=NAME",
    "timeout_min": "settings of Slurm stand below slurm, e.g. +hydra.launcher.slurm.timeout_min=60",
    "mem_gb": "settings of Slurm stand below slurm, e.g. +hydra.launcher.slurm.mem_gb=4",
}


def check(kind: str, name: str, keys: Iterable[str]) -> None:
    """Raises `ConfigError`: keys that the plugin `hydra/<kind>=<name>` does not have."""
    if unknown := [key for key in keys if key not in KEYS[kind, name]]:
        raise ConfigError([unknown_key(f"hydra.{kind}.{key}", name) for key in unknown])


def check_chosen(hydra_node: Mapping[str, Any]) -> None:
    """Raises `ConfigError`: keys that the chosen sweeper or launcher does not have, if it is one of ours."""
    for (kind, name), target in TARGETS.items():
        if hydra_node[kind].get("_target_") == target:
            check(kind, name, [key for key in hydra_node[kind] if key != "_target_"])


def owners(key: str) -> set[str]:
    """The plugins, by name, that have a key such as `hydra.sweeper.limit`."""
    _, kind, name = key.split(".", 2)
    return {owner for (its_kind, owner), keys in KEYS.items() if its_kind == kind and name.partition(".")[0] in keys}


def unknown_key(key: str, chosen: str | None = None) -> str:
    """The message for a key below `hydra.sweeper` or `hydra.launcher` that does not exist.

    Args:
        chosen: the name of the plugin that is in use, if it is one of ours.
    """
    _, kind, name = key.split(".", 2)
    top_name = name.partition(".")[0]
    of_kind = {owner: keys for (its_kind, owner), keys in KEYS.items() if its_kind == kind}
    owners = [owner for owner, keys in of_kind.items() if top_name in keys]
    candidates = of_kind[chosen] if chosen else [candidate for keys in of_kind.values() for candidate in keys]
    if kind == "sweeper" and top_name in _OF_GRIDS and "." in name:
        hint = f"what is typed replaces the whole {top_name} of an experiment: {_OF_GRIDS[top_name]}"
    elif kind == "sweeper" and top_name in _OF_GRIDS and chosen != "grid":
        hint = (
            f"{_OF_GRIDS[top_name]} chooses the runs of hydra/sweeper=grid, and a search proposes its own: leave it out"
        )
    elif top_name in _ELSEWHERE:
        hint = _ELSEWHERE[top_name]
    elif owners and chosen not in owners:
        hint = f"it belongs to hydra/{kind}={owners[0]}; " + (
            f"give that on the command line, or leave the key out with hydra/{kind}={chosen}"
            if chosen
            else "add that, or leave the key out"
        )
    else:
        descriptions = [
            f"hydra/{kind}={owner} has {', '.join(keys)}" for owner, keys in of_kind.items() if chosen in (None, owner)
        ]
        hint = did_you_mean(top_name, candidates, "; ".join(descriptions), prefix=f"hydra.{kind}.")
    return f"unknown key '{key}'; {hint}"
