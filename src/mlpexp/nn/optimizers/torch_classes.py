"""Optimizers that torch does not have, as subclasses of its `Optimizer`, for a run alone. Import it late."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from mlpexp.nn.optimizers.muon import NO_UPDATE_BELOW, orthogonal, scale


class SignSgd(torch.optim.Optimizer):
    """Steps along the sign of the gradient or of its momentum; see `gradient_descent.SignSgd`."""

    def __init__(self, params: Any, lr: float = 1e-3, weight_decay: float = 0.0, momentum: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One step."""
        loss = evaluated(closure)
        for group, parameter, gradient in with_gradients(self.param_groups):
            decay = group["weight_decay"]
            direction = gradient if decay == 0 else gradient.add(parameter, alpha=decay)
            if group["momentum"] != 0:
                state = self.state[parameter]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(parameter)
                direction = state["momentum_buffer"].mul_(group["momentum"]).add_(direction)
            parameter.add_(direction.sign(), alpha=-group["lr"])
        return loss


class Lion(torch.optim.Optimizer):
    """See `gradient_descent.Lion`."""

    def __init__(
        self, params: Any, lr: float = 1e-4, weight_decay: float = 0.0, betas: tuple[float, float] = (0.9, 0.99)
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "betas": betas})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One step."""
        loss = evaluated(closure)
        for group, parameter, gradient in with_gradients(self.param_groups):
            if not (state := self.state[parameter]):
                state["exp_avg"] = torch.zeros_like(parameter)
            beta1, beta2 = group["betas"]
            if group["weight_decay"] != 0:
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
            parameter.add_(state["exp_avg"].lerp(gradient, 1 - beta1).sign_(), alpha=-group["lr"])
            state["exp_avg"].lerp_(gradient, 1 - beta2)
        return loss


class Muon(torch.optim.AdamW):
    """`torch.optim.Muon` for groups with `is_matrix`, `torch.optim.AdamW` for the others."""

    def __init__(
        self,
        params: Any,
        lr: float = 0.02,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
        nesterov: bool = True,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)
        for defaults in (self.defaults, *self.param_groups):
            for name, value in {"momentum": momentum, "nesterov": nesterov, "is_matrix": True}.items():
                defaults.setdefault(name, value)

    def __setstate__(self, state: dict[str, Any]) -> None:
        torch.optim.Optimizer.__setstate__(self, state)  # AdamW's own expects a step in the state of matrices, too

    def step(self, closure: Any = None) -> Any:
        """One step."""
        loss = evaluated(closure)
        groups = self.param_groups
        with torch.no_grad():
            for group, parameter, gradient in with_gradients([group for group in groups if group["is_matrix"]]):
                self._step_matrix(group, parameter, gradient)
        self.param_groups = [group for group in groups if not group["is_matrix"]]
        try:
            super().step()
        finally:
            self.param_groups = groups
        return loss

    def _step_matrix(self, group: dict[str, Any], parameter: Tensor, gradient: Tensor) -> None:
        if not (state := self.state[parameter]):
            state["momentum_buffer"] = torch.zeros_like(parameter)
        buffer = state["momentum_buffer"].lerp_(gradient, 1 - group["momentum"])
        update = gradient.lerp(buffer, group["momentum"]) if group["nesterov"] else buffer
        direction = orthogonal(update.unsqueeze(0), NO_UPDATE_BELOW)[0]
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.add_(direction, alpha=-group["lr"] * scale(parameter.shape))


def evaluated(closure: Any) -> Any:
    """The loss that a step's closure computes, if there is one."""
    if closure is None:
        return None
    with torch.enable_grad():
        return closure()


def with_gradients(groups: Iterable[dict[str, Any]]) -> Iterable[tuple[dict[str, Any], Tensor, Tensor]]:
    """Each parameter that has a gradient, with its group."""
    for group in groups:
        for parameter in group["params"]:
            if parameter.grad is not None:
                yield group, parameter, parameter.grad
