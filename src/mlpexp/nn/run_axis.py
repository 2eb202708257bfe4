"""Values of each run beside stacked tensors (R, ...)."""

from __future__ import annotations

from mlpexp.nn.lazy_torch import Tensor, torch


def broadcastable(values: Tensor, like: Tensor) -> Tensor:
    """(R,) as (R, 1, ...), with the dimensions of `like`."""
    return values.view(-1, *[1] * (like.ndim - 1))


def choose_runs(runs: Tensor, chosen: Tensor, otherwise: Tensor) -> Tensor:
    """For these runs, (R,) bool on any device, the rows of `chosen`, else those of `otherwise`."""
    return torch.where(broadcastable(runs.to(otherwise.device), otherwise), chosen, otherwise)
