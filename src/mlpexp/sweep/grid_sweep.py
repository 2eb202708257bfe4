"""The work of `hydra/sweeper=grid`: expand, check, train, through our launcher or any other one of Hydra's."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf

from mlpexp.config import plugin_keys
from mlpexp.config.schema import Config
from mlpexp.runtime.errors import ConfigError, RunsFailed, described
from mlpexp.sweep.check_runs import check
from mlpexp.sweep.compose import Composer
from mlpexp.sweep.grid import expand
from mlpexp.sweep.hydra_launch import StackedReturn, Sweep, refuse_other_application


def sweep(
    settings: dict[str, Any],
    arguments: Sequence[str],
    context: HydraContext,
    config: DictConfig,
    launcher: Launcher,
) -> list[JobReturn]:
    """Train every combination of the values in `arguments` and `hydra.sweeper.params`.

    Raises:
        UserError: all that is wrong with the sweep; nothing has been written then.
    """
    refuse_other_application(config, "hydra/sweeper=grid")
    plugin_keys.check("sweeper", "grid", settings)
    size = settings["max_batch_size"]
    if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 1):
        raise ConfigError(
            [f"hydra.sweeper.max_batch_size={size} is out of range: it must be >= 1, or null for all runs"]
        )
    ours = getattr(launcher, "sweep", None)
    max_runs = ours.max_runs if isinstance(ours, Sweep) else None
    specs = expand(settings["params"], arguments, context.config_loader, max_runs)
    if isinstance(ours, Sweep):
        return ours.train_grid(specs, size)
    for run in check(Composer(context.config_loader, config), specs, alone=True):
        _refuse_stacked_only(run.config)
    directory = Path(str(config.hydra.sweep.dir))
    directory.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(config, directory / "multirun.yaml")
    texts, size = [spec.texts for spec in specs], size or len(specs)
    returns: list[JobReturn] = []
    for first in range(0, len(texts), size):
        returns += launcher.launch(texts[first : first + size], initial_job_idx=first)
    return returns


def _refuse_stacked_only(cfg: Config) -> None:
    """
    Raises:
        UserError: a key that only `hydra/launcher=stacked` can follow.
    """
    given = {
        "dry_run=true shows the plan of a sweep": cfg.dry_run,
        "halving.rungs compares the runs of a sweep": cfg.halving.rungs is not None,
        "record=table keeps the runs of a sweep": cfg.record == "table",
    }
    if problems := [
        f"{what} that is trained in stacks; leave out hydra/launcher" for what, is_set in given.items() if is_set
    ]:
        raise ConfigError(problems)


def raise_failures(returns: Sequence[JobReturn]) -> None:
    """
    Raises:
        RunsFailed: some runs raised.
    """
    failed = [ended for ended in returns if ended.status == JobStatus.FAILED]
    if not failed:
        return
    error = failed[0]._return_value
    first = "" if isinstance(failed[0], StackedReturn) else f" ({described(error)})"  # named on the terminal already
    raise RunsFailed(
        f"{len(failed):,} of {len(returns):,} runs failed{first}; the same command tries them again"
    ) from error
