"""L-BFGS, which evaluates the loss several times in a step and trains alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlpexp.nn.optimizers.stack_optimizer import StackOptimizer
from mlpexp.runtime.lazy_import import LazyModule

if TYPE_CHECKING:
    import torch
else:
    torch = LazyModule("torch")


class Lbfgs(StackOptimizer):
    """`torch.optim.LBFGS`. All parameters are one vector, so that there are no rates or decays per parameter."""

    keys = ("max_iter", "history_size", "line_search_fn")
    has_decay = False
    is_adaptive = None
    trains_alone = "optimizer.name=lbfgs evaluates the loss a different number of times in each run"

    @staticmethod
    def torch_class() -> type[torch.optim.Optimizer]:
        return torch.optim.LBFGS
