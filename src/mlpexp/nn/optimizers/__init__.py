"""The optimizers: one class each, with its state and its update over a stack of runs.

Of a new one, `conf/optimizer/NAME.yaml` has the usual learning rate, and a setting that none of the others has is a
field of `OptimizerConfig` in `config/training_config.py`, named in the class's `keys`.
"""

from mlpexp.nn.optimizers.adaptive import Adagrad, Adam, AdamW, NAdam, RmsProp
from mlpexp.nn.optimizers.gradient_descent import Lbfgs, Lion, Sgd, SignSgd
from mlpexp.nn.optimizers.muon import Muon
from mlpexp.nn.optimizers.stack_optimizer import PerRun, StackOptimizer, UpdateSettings
from mlpexp.runtime.registry import Registry

__all__ = ["OPTIMIZERS", "PerRun", "StackOptimizer", "UpdateSettings"]

OPTIMIZERS: Registry[type[StackOptimizer]] = Registry(
    "optimizer",
    {
        "sgd": Sgd,
        "adam": Adam,
        "adamw": AdamW,
        "nadam": NAdam,
        "rmsprop": RmsProp,
        "adagrad": Adagrad,
        "lion": Lion,
        "signsgd": SignSgd,
        "muon": Muon,
        "lbfgs": Lbfgs,
    },
)
