"""`hydra/sweeper=grid`: every combination of the listed values; the default of mlpexp."""

# Hydra executes this file again at every scan for plugins: no state here, and nothing heavy
from pathlib import Path
from typing import Any

from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class GridSweeper(Sweeper):
    """Hands the command line to `mlpexp.sweep.grid_sweep`."""

    def __init__(self, **settings: Any) -> None:
        self.settings = settings

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.config = hydra_context, config
        self.launcher = Plugins.instance().instantiate_launcher(hydra_context, task_function, config)

    def sweep(self, arguments: list[str]) -> Any:
        from mlpexp.report import report_at_end
        from mlpexp.sweep.grid_sweep import raise_failures, sweep_grid

        assert self.hydra_context is not None and self.config is not None and self.launcher is not None
        returns = sweep_grid(self.settings, arguments, self.hydra_context, self.config, self.launcher)
        if report_at_end.is_requested(self.config):
            report_at_end.write_report(
                Path(str(self.config.hydra.sweep.dir)).absolute()
            )  # before an error ends the sweep
        raise_failures(returns)
        return [returns]
