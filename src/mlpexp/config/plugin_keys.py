"""The keys below `hydra.sweeper` and `hydra.launcher`, and what to type in place of those that do not exist."""

from collections.abc import Iterable
from difflib import get_close_matches

from mlpexp.runtime.errors import ConfigError

# the keys of our plugins; conf/hydra/<kind>/<name>.yaml has their defaults, and a test compares them
KEYS: dict[tuple[str, str], tuple[str, ...]] = {
    ("sweeper", "grid"): ("params", "max_batch_size"),
    ("sweeper", "optuna"): ("params", "sampler", "n_trials", "batch_size", "seed", "objectives", "storage"),
    ("launcher", "stacked"): ("max_runs", "backend", "workers", "address", "executor", "slurm"),
}
TARGETS: dict[tuple[str, str], str] = {
    ("sweeper", "grid"): "hydra_plugins.mlpexp_grid_sweeper.grid_sweeper.GridSweeper",
    ("sweeper", "optuna"): "hydra_plugins.mlpexp_optuna_sweeper.optuna_sweeper.OptunaSweeper",
    ("launcher", "stacked"): "hydra_plugins.mlpexp_stacked_launcher.stacked_launcher.StackedLauncher",
}
_WORKERS = "stacks are trained at once with hydra.launcher.backend=fork hydra.launcher.workers=2"
_DIRECTION = "losses are minimised and accuracies maximised; choose the metric with hydra.sweeper.objectives=[val/acc]"
# how other sweepers and launchers call it
_ELSEWHERE = {
    "direction": _DIRECTION,
    "directions": _DIRECTION,
    "metric": _DIRECTION,
    "study_name": "a search is named by its directory, e.g. name=search",
    "pruner": "runs are stopped early by early_stopping.patience=3, or those of a grid by halving.rungs=[1,3,9]",
    "n_jobs": _WORKERS,
    "num_workers": _WORKERS,
    "max_workers": _WORKERS,
    "n_startup_trials": "the sampler has the keys hydra.sweeper.sampler and hydra.sweeper.seed only",
    "search_space": "the space is written as overrides, e.g. optimizer.lr=tag(log,interval(0.001,1))",
    "partition": "settings of Slurm stand below slurm, e.g. +hydra.launcher.slurm.slurm_partition=NAME",
    "timeout_min": "settings of Slurm stand below slurm, e.g. +hydra.launcher.slurm.timeout_min=60",
    "mem_gb": "settings of Slurm stand below slurm, e.g. +hydra.launcher.slurm.mem_gb=4",
}


def check(kind: str, name: str, given: Iterable[str]) -> None:
    """
    Raises:
        ConfigError: keys that the plugin `hydra/<kind>=<name>` does not have.
    """
    if unknown := [key for key in given if key not in KEYS[kind, name]]:
        raise ConfigError([unknown_key(f"hydra.{kind}.{key}", name) for key in unknown])


def unknown_key(key: str, chosen: str | None = None) -> str:
    """The message for a key below `hydra.sweeper` or `hydra.launcher` that does not exist.

    Args:
        chosen: the name of the plugin that is in use, if it is one of ours.
    """
    _, kind, name = key.split(".", 2)
    first = name.partition(".")[0]
    owners = [owner for of_kind, owner in KEYS if of_kind == kind and first in KEYS[of_kind, owner]]
    own = KEYS.get((kind, chosen or ""), ())
    if first in _ELSEWHERE:
        hint = _ELSEWHERE[first]
    elif owners and chosen not in owners:
        hint = f"it belongs to hydra/{kind}={owners[0]}; add that, or leave the key out"
    elif close := get_close_matches(
        first, own or [known for (k, _), keys in KEYS.items() if k == kind for known in keys], 1
    ):
        hint = f"did you mean hydra.{kind}.{close[0]}?"
    elif chosen:
        hint = f"hydra/{kind}={chosen} has {', '.join(own)}"
    else:
        hint = "; ".join(
            f"hydra/{kind}={owner} has {', '.join(keys)}" for (of, owner), keys in KEYS.items() if of == kind
        )
    return f"unknown key '{key}'; {hint}"
