"""`hydra/sweeper=optuna`: a search that learns from its trials, a generation at a time."""

# Hydra executes this file again at every scan for plugins: no state here, and nothing heavy
from typing import Any

from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class OptunaSweeper(Sweeper):
    """Hands the command line to `mlpexp.search.optuna_search`."""

    def __init__(self, **settings: Any) -> None:
        self.settings = settings

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        from mlpexp.config import plugin_keys
        from mlpexp.sweep.hydra_sweep import refuse_other_application

        refuse_other_application(config, "hydra/sweeper=optuna")
        plugin_keys.check("sweeper", "optuna", self.settings)
        self.hydra_context, self.config = hydra_context, config
        self.launcher = Plugins.instance().instantiate_launcher(hydra_context, task_function, config)

    def sweep(self, arguments: list[str]) -> Any:
        from mlpexp.search.optuna_search import optimise

        assert self.hydra_context is not None and self.config is not None and self.launcher is not None
        return optimise(self.settings, arguments, self.hydra_context, self.config, self.launcher)
