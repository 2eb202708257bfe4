"""`hydra/launcher=stacked`: the runs of a sweep are checked together and trained in stacks."""

# Hydra executes this file again at every scan for plugins: no state here, and nothing heavy
from collections.abc import Sequence
from typing import Any

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class StackedLauncher(Launcher):
    """Hands the jobs of a sweeper to `mlpexp.sweep.hydra_sweep`; the grid sweeper takes `sweep` itself."""

    def __init__(self, **settings: Any) -> None:
        self.settings = settings

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        from mlpexp.cli import hydra_app
        from mlpexp.config.plugin_keys import TARGETS
        from mlpexp.sweep.hydra_sweep import Sweep

        self.sweep = Sweep(hydra_context, task_function, config, self.settings, prepare=hydra_app.register_resolvers)
        if config.hydra.sweeper.get("_target_") != TARGETS["sweeper", "grid"]:
            self.sweep.open_for_portions()

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from mlpexp.sweep.grid import specs

        return self.sweep.train_portion(specs(job_overrides, initial_job_idx))
