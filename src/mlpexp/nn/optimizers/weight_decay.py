"""Weight decay of a stack: a penalty in the gradient (coupled) or a shrinking of the parameter (decoupled), per run.

Letters: R runs.
"""

from __future__ import annotations

from collections.abc import Sequence

from mlpexp.nn.lazy_torch import Tensor, torch
from mlpexp.nn.run_axis import broadcastable


class WeightDecay:
    """The decay of stacked parameters (R, ...).

    Args:
        weight_decay: (R,), or one such tensor for each parameter; None means zero for all.
        decoupled: of which runs it shrinks the parameter itself, (R,) bool; None: of none.

    Attributes:
        shrinks: at least one parameter of one run has a decoupled decay.
    """

    def __init__(
        self,
        weight_decay: Tensor | Sequence[Tensor] | None,
        decoupled: Tensor | None,
        parameters: Sequence[Tensor],
    ) -> None:
        self._parameters = parameters
        values: Sequence[Tensor] = []
        if weight_decay is not None:
            values = [weight_decay] * len(parameters) if isinstance(weight_decay, torch.Tensor) else weight_decay
        if decoupled is None:
            self._penalties, self._shrinkings = _used(values, parameters), {}
        else:
            self._penalties = _used([row.masked_fill(decoupled.to(row.device), 0.0) for row in values], parameters)
            self._shrinkings = _used([row.masked_fill(~decoupled.to(row.device), 0.0) for row in values], parameters)
        self.shrinks = bool(self._shrinkings)
        self._factors = {i: broadcastable(row.to(parameters[i]), parameters[i]) for i, row in self._penalties.items()}
        # without a penalty the parameter must not be multiplied by zero: zero times infinity would be NaN
        self._masks = {
            i: broadcastable(row.ne(0).to(parameters[i].device), parameters[i])
            for i, row in self._penalties.items()
            if not bool(row.all())
        }
        self._scratch = {i: torch.empty_like(parameters[i]) for i in self._masks}

    def add_to(self, i: int, gradient: Tensor) -> None:
        """Add parameter i's penalty to its gradient, in place."""
        if (factor := self._factors.get(i)) is None:
            return
        parameter = self._parameters[i]
        if (mask := self._masks.get(i)) is None:
            gradient.addcmul_(parameter, factor)
            return
        torch.addcmul(gradient, parameter, factor, out=self._scratch[i])
        torch.where(mask, self._scratch[i], gradient, out=gradient)

    def shrink(self, i: int, lr: Tensor) -> None:
        """Multiply parameter i by 1 - lr * decay in place, with `lr` (R,) float64; 1 keeps a run's bits."""
        if (decay := self._shrinkings.get(i)) is not None:
            parameter = self._parameters[i]
            parameter.mul_(broadcastable((1 - lr * decay).to(parameter), parameter))


def _used(values: Sequence[Tensor], parameters: Sequence[Tensor]) -> dict[int, Tensor]:
    """By parameter, where a run has a decay, on the parameter's device."""
    pairs = enumerate(zip(values, parameters, strict=False))
    return {i: row.to(parameter.device) for i, (row, parameter) in pairs if bool(row.any())}
