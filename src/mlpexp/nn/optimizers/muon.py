"""Muon: the momentum of a weight matrix, made orthogonal (Jordan et al. 2024, "Muon: an optimizer for hidden layers").

Weight matrices below the logits take Muon's steps, as `torch.optim.Muon` with its default (original) scale; all other
parameters those of AdamW, with the learning rate `optimizer.adamw_lr`.

Letters: R runs, O and I the sides of a matrix.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from mlpexp.nn.lazy_torch import Tensor, torch
from mlpexp.nn.optimizers.adaptive import AdamW
from mlpexp.nn.optimizers.stack_optimizer import PerRun, UpdateSettings, factors

if TYPE_CHECKING:
    from mlpexp.nn.network import NetworkSpec

COEFFICIENTS = 3.4445, -4.775, 2.0315  # of the quintic iteration
ITERATIONS = 5
NO_UPDATE_BELOW = 1e-7  # a matrix of smaller norm is not scaled up further


class Muon(AdamW):
    """`torch.optim.Muon` for weight matrices below the logits, `torch.optim.AdamW` for the rest."""

    torch_path = "mlpexp.nn.optimizers.torch_classes.Muon"
    keys: ClassVar[tuple[str, ...]] = ("momentum", "nesterov", "betas", "eps", "adamw_lr")
    defaults: ClassVar[Mapping[str, Any]] = {"momentum": 0.95, "nesterov": True, "betas": (0.9, 0.999), "eps": 1e-8}
    state_names: ClassVar[tuple[str, ...]] = ("momentum_buffer", "exp_avg", "exp_avg_sq")
    is_adaptive: ClassVar[bool | None] = None
    can_be_captured = False

    def __init__(self, settings: UpdateSettings, parameters: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
        super().__init__(settings, parameters, gradients)
        like = parameters[0]
        if (matrices := settings.matrices) is None:
            last = max(i for i, parameter in enumerate(parameters) if parameter.ndim == 3)
            matrices = [parameter.ndim == 3 and i != last for i, parameter in enumerate(parameters)]
        self._is_matrix = matrices
        momentum, nesterov = self._setting("momentum"), self._setting("nesterov").bool()
        self._new, self._old = factors(1 - momentum, like)[3], factors(momentum, like)[3]
        self._nesterov = None if bool(nesterov.all()) else PerRun(nesterov.to(like.device)).of[3]
        self._negative = [PerRun(p.new_zeros(len(p))) for p in parameters]

    @classmethod
    def arguments(cls, settings: Any) -> dict[str, Any]:
        return {key: value for key, value in super().arguments(settings).items() if key != "adamw_lr"}

    @classmethod
    def own_rates(cls, settings: Any, network: NetworkSpec) -> dict[str, float]:
        matrices = hidden_matrices(network)
        rate = settings.lr if settings.adamw_lr is None else settings.adamw_lr
        return {name: settings.lr if name in matrices else rate for name in network.shapes}

    @classmethod
    def group_options(cls, network: NetworkSpec, name: str) -> dict[str, Any]:
        return {"is_matrix": name in hidden_matrices(network)}

    @classmethod
    def state_of_parameter(cls, settings: Any, is_matrix: bool) -> tuple[str, ...]:
        return ("momentum_buffer",) if is_matrix else ("step", "exp_avg", "exp_avg_sq")

    def _update(self, i: int, parameter: Tensor, gradient: Tensor) -> None:
        if not self._is_matrix[i]:
            super()._update(i, parameter, gradient)
            return
        buffer = self.state["momentum_buffer"][i].lerp_(gradient, self._new)
        update = torch.lerp(gradient, buffer, self._old)
        if self._nesterov is not None:
            torch.where(self._nesterov, update, buffer, out=update)
        direction = orthogonal(update, NO_UPDATE_BELOW).to(parameter.dtype)
        self._negative[i].plan(-self._rate(i) * scale(parameter.shape[1:]))
        parameter.addcmul_(direction, self._negative[i].of[3])


def hidden_matrices(network: NetworkSpec) -> set[str]:
    """The names of the weight matrices below the logits; of a user's module all but the last that it defines."""
    return set(network.weight_names[:-1])


def scale(shape: Sequence[int]) -> float:
    """The factor of the learning rate for a matrix (O, I)."""
    return math.sqrt(max(1, shape[0] / shape[1]))


def orthogonal(matrices: Tensor, eps: float) -> Tensor:
    """Matrices (R, O, I) with the singular vectors of the given ones and singular values near 1.

    Five Newton-Schulz iterations in bfloat16; each matrix has the bits that `torch.optim.Muon` gives it alone.

    Args:
        eps: a matrix of smaller norm is not scaled up further.
    """
    a, b, c = COEFFICIENTS
    result = matrices.bfloat16()
    wide = result.shape[1] <= result.shape[2]
    if not wide:
        result = result.mT.contiguous()
    # the norm of one matrix at a time: that of a batch is rounded in another order
    norms = torch.stack([matrix.norm() for matrix in result]).clamp(min=eps)
    result = result / norms.view(-1, 1, 1)
    for _ in range(ITERATIONS):
        gram = result @ result.mT
        gram_update = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        result = torch.baddbmm(result, gram_update, result, beta=a)
    return result if wide else result.mT
