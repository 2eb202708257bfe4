"""Clipping of gradients, each run by its own norm: the same code for a run alone (R = 1) and for a stack.

Letters: R runs, P parameters.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from mlpexp.nn.run_axis import broadcastable


def clip_run_(gradients: Sequence[Tensor], norm: float | None, value: float | None) -> None:
    """Clip the gradients of one run in place, without a run axis; None for no limit."""
    limits = [None if limit is None else torch.tensor([limit], dtype=torch.float64) for limit in (norm, value)]
    if any(limit is not None for limit in limits):
        clip_([gradient.unsqueeze(0) for gradient in gradients], *limits)


@torch.no_grad()
def clip_(gradients: Sequence[Tensor], norms: Tensor | None = None, values: Tensor | None = None) -> None:
    """Clip the gradients of all parameters in place, each (R, ...) and contiguous.

    Args:
        norms: the largest norm of a run's gradient over all its parameters, (R,), infinite where it is not clipped;
            to the bits of `torch.nn.utils.clip_grad_norm_`.
        values: the largest size of an element, (R,), likewise; as `clip_grad_value_`.
    """
    if norms is not None:
        norms = norms.to(gradients[0])
        parameter_norms = torch.stack(
            [torch.linalg.vector_norm(gradient.reshape(len(gradient), -1), dim=1) for gradient in gradients], -1
        )  # (R, P)
        total = torch.linalg.vector_norm(parameter_norms, dim=-1)
        scales = ((total + 1e-6).reciprocal() * norms).clamp(max=1.0)
        scales.masked_fill_(norms.isinf(), 1.0)  # also where the total is infinite
        for gradient in gradients:
            gradient.mul_(broadcastable(scales, gradient))
    if values is not None:
        values = values.to(gradients[0])
        for gradient in gradients:
            bound = broadcastable(values, gradient)
            torch.minimum(torch.maximum(gradient, -bound, out=gradient), bound, out=gradient)
