"""`hydra/launcher=stacked`: the runs of a sweep are composed, checked and trained together in this process."""

# Hydra runs this file again at every scan for plugins: no state here, and nothing heavy
from collections.abc import Sequence
from dataclasses import dataclass

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


ConfigStore.instance().store(group="hydra/launcher", name="stacked", node=StackedLauncherConf, provider="mlpexp")


class StackedLauncher(Launcher):
    """Thin: `mlpexp.sweep.launch` does the work."""

    def __init__(self, max_runs: int) -> None:
        self.max_runs = max_runs

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        from mlpexp.sweep.launch import Sweep

        self.sweep = Sweep(hydra_context, task_function, config, self.max_runs)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from mlpexp.report import at_end
        from mlpexp.sweep.launch import launch

        returns = launch(self.sweep, job_overrides, initial_job_idx)
        if self.sweep.is_whole and at_end.is_asked_for(self.sweep.config):
            at_end.make(self.sweep.directory)  # now: the sweeper ends with an error where a run has failed
        return returns
