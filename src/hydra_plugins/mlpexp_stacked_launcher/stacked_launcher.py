"""`hydra/launcher=stacked`: the runs of a sweep are composed and checked together, and trained in stacks."""

# Hydra runs this file again at every scan for plugins: no state here, and nothing heavy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Optional

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


@dataclass
class StackedLauncherConf:
    _target_: str = "hydra_plugins.mlpexp_stacked_launcher.stacked_launcher.StackedLauncher"
    # a sweep of more runs than this is refused before it starts
    max_runs: int = 100_000
    # where it trains: process (this one), fork (copies of it), loky (worker processes here), dask, submitit (Slurm);
    # auto: fork where a sweep is long enough and there are several cores, else process
    backend: str = "auto"
    # stacks trained at once; null: as many as there are cores, or stacks in a cluster's queue
    workers: Optional[int] = None  # noqa: UP045 - OmegaConf reads it
    # of a dask scheduler, e.g. tcp://127.0.0.1:8786; null starts a cluster on this machine
    address: Optional[str] = None  # noqa: UP045
    # submitit's: slurm, or local for a try
    executor: str = "slurm"
    # what submitit's update_parameters takes, e.g. +hydra.launcher.slurm.slurm_partition=NAME
    slurm: dict[str, Any] = field(default_factory=dict)


ConfigStore.instance().store(group="hydra/launcher", name="stacked", node=StackedLauncherConf, provider="mlpexp")


class StackedLauncher(Launcher):
    """Thin: `mlpexp.sweep.hydra_launch` does the work."""

    def __init__(self, max_runs: int, **settings: Any) -> None:
        self.max_runs, self.settings = max_runs, settings

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        from mlpexp.cli import hydra_app
        from mlpexp.sweep.backends.launcher_settings import Settings
        from mlpexp.sweep.hydra_launch import Sweep

        settings = Settings(**self.settings)
        self.sweep = Sweep(hydra_context, task_function, config, self.max_runs, settings, prepare=hydra_app.register)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from mlpexp.report import report_at_end
        from mlpexp.sweep.hydra_launch import launch

        returns = launch(self.sweep, job_overrides, initial_job_idx)
        if self.sweep.is_whole and report_at_end.is_asked_for(self.sweep.config):
            report_at_end.make(self.sweep.directory)  # now: the sweeper ends with an error where a run has failed
        return returns
