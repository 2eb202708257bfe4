"""`hydra/sweeper=optuna`: a search with Optuna that trains each generation of trials in stacks."""

# Hydra runs this file again at every scan for plugins: no state here, and nothing heavy
from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional  # noqa: UP035 - what OmegaConf reads

from hydra.core.config_store import ConfigStore
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


@dataclass
class OptunaSweeperConf:
    _target_: str = "hydra_plugins.mlpexp_optuna_sweeper.optuna_sweeper.OptunaSweeper"
    # tpe, cmaes, random, qmc (quasi-random) or grid
    sampler: str = "tpe"
    # in total: the same command with more continues; null: 100, or the whole grid
    n_trials: Optional[int] = None  # noqa: UP045
    # trials that are chosen, and trained, together; null: a quarter of them, at most 20 (50 where nothing is learned)
    batch_size: Optional[int] = None  # noqa: UP045
    # of the sampler; runs have seeds of their own
    seed: int = 0
    # e.g. [val/acc,num_parameters]; null: the metric in monitor
    objectives: Optional[List[str]] = None  # noqa: UP006, UP045
    # null: Optuna's journal file in the sweep's directory; sqlite: a database there; or an address, a file
    storage: Optional[str] = None  # noqa: UP045
    # the space, as on the command line
    params: Dict[str, str] = field(default_factory=dict)  # noqa: UP006


ConfigStore.instance().store(group="hydra/sweeper", name="optuna", node=OptunaSweeperConf, provider="mlpexp")


class OptunaSweeper(Sweeper):
    """Thin: `mlpexp.search.optuna_search` does the work."""

    def __init__(self, **settings: Any) -> None:
        self.settings = settings

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        from hydra.core.plugins import Plugins

        self.hydra_context, self.config = hydra_context, config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: List[str]) -> Any:  # noqa: UP006
        from mlpexp.search.optuna_search import optimise

        assert self.hydra_context is not None and self.config is not None and self.launcher is not None
        return optimise(self.settings, arguments, self.hydra_context, self.config, self.launcher)
