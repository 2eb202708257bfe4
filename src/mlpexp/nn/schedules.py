"""Learning-rate schedules, and stochastic gradient descent by hand."""

import math

import torch
from torch import Tensor

from mlpexp.config.schema import OptimizerConfig


def learning_rate(cfg: OptimizerConfig, epoch: int, max_epochs: int, factor: float = 1.0) -> float:
    """The rate in `epoch` (from 0) of a training of `max_epochs`: linear warm-up, then the schedule.

    Args:
        factor: of the parameter, see `parametrization`; multiplied first, as torch's schedules do.
    """
    return (cfg.lr * factor) * rate_factor(cfg, epoch, max_epochs)


def rate_factor(cfg: OptimizerConfig, epoch: int, max_epochs: int) -> float:
    """What `cfg.lr` is multiplied by in `epoch`."""
    if epoch < cfg.warmup_epochs:
        return (epoch + 1) / (cfg.warmup_epochs + 1)
    elapsed = epoch - cfg.warmup_epochs
    match cfg.schedule:
        case "cosine":
            return 0.5 * (1 + math.cos(math.pi * elapsed / max(1, max_epochs - cfg.warmup_epochs)))
        case "step":
            return cfg.step_factor ** (elapsed // cfg.step_epochs)
    return 1.0


@torch.no_grad()
def sgd_(
    parameter: Tensor,
    gradient: Tensor,
    velocity: Tensor | None,
    cfg: OptimizerConfig,
    lr: float,
    factor: float = 1.0,
) -> None:
    """One step of stochastic gradient descent in place, as `torch.optim.SGD` defines it.

    Args:
        velocity: the momentum buffer, zeros at first, also changed in place; None without momentum.
        factor: what is already in `lr`, and divides the weight decay, see `parametrization`.
    """
    if cfg.weight_decay > 0:
        gradient = gradient + (cfg.weight_decay / factor) * parameter
    if velocity is not None:
        velocity.mul_(cfg.momentum).add_(gradient)
        gradient = gradient + cfg.momentum * velocity if cfg.nesterov else velocity
    parameter -= lr * gradient
