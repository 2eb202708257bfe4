"""Gradient descent with momentum, its variants that use only the signs, and L-BFGS."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from mlpexp.nn.lazy_torch import Tensor, torch
from mlpexp.nn.optimizers.stack_optimizer import PerRun, StackOptimizer, UpdateSettings, factors, if_any, if_mixed


class Sgd(StackOptimizer):
    """`torch.optim.SGD`: momentum, Nesterov and weight decay may differ from run to run, and be zero."""

    torch_path = "torch.optim.SGD"
    keys: ClassVar[tuple[str, ...]] = ("momentum", "nesterov")
    state_names: ClassVar[tuple[str, ...]] = ("momentum_buffer",)
    can_be_captured = True

    def __init__(self, settings: UpdateSettings, parameters: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
        super().__init__(settings, parameters, gradients)
        like = parameters[0]
        self._negative = [PerRun(like.new_zeros(len(like)))]
        momentum, nesterov = settings.per_run.get("momentum"), settings.per_run.get("nesterov")
        self._momentum = if_any(momentum, like)
        # without momentum the buffer must not be multiplied by zero: zero times infinity would be NaN
        self._without_momentum = None if momentum is None else if_mixed(momentum.eq(0), like)
        self._nesterov = if_any(nesterov, like, torch.bool)
        self._nesterov_differs = self._nesterov is not None and if_mixed(nesterov, like) is not None
        if self._momentum is not None:
            self.state["momentum_buffer"] = self._zeros()

    @classmethod
    def state_of_run(cls, settings: Any) -> tuple[str, ...]:
        return cls.state_names if settings.momentum > 0 else ()

    def schedule(self, lr: Tensor | Sequence[Tensor]) -> None:
        super().schedule(lr)
        rows = [lr] if isinstance(lr, torch.Tensor) else lr
        if len(rows) != len(self._negative):
            self._negative = [PerRun(p.new_zeros(len(p))) for p, _ in zip(self._parameters, rows, strict=False)]
        for rates, row in zip(self._negative, rows, strict=True):
            rates.plan(-row)

    def _begin_step(self) -> None:
        for rates in self._negative:
            rates.take(self.num_steps - 1 - self._planned_from)

    def _update(self, i: int, parameter: Tensor, gradient: Tensor) -> None:
        step = gradient if self._momentum is None else self._with_momentum(i, gradient, self._momentum)
        parameter.addcmul_(step, self._negative[i if len(self._negative) > 1 else 0].of[parameter.ndim])

    def _with_momentum(self, i: int, gradient: Tensor, momentum: PerRun) -> Tensor:
        n = gradient.ndim
        buffer = self.state["momentum_buffer"][i]
        if self._without_momentum is not None:
            buffer.masked_fill_(self._without_momentum.of[n], 0.0)
        buffer.mul_(momentum.of[n]).add_(gradient)
        if self._nesterov is None:
            return buffer
        gradient.addcmul_(buffer, momentum.of[n])
        if self._nesterov_differs:
            torch.where(self._nesterov.of[n], gradient, buffer, out=gradient)
        return gradient


class SignSgd(Sgd):
    """Steps of equal size in every coordinate, along the sign of the gradient or of its momentum (Bernstein et al.
    2018, "signSGD" and "Signum").
    """

    torch_path = "mlpexp.nn.optimizers.torch_classes.SignSgd"
    keys: ClassVar[tuple[str, ...]] = ("momentum",)
    is_adaptive = True

    def _update(self, i: int, parameter: Tensor, gradient: Tensor) -> None:
        super()._update(i, parameter, gradient.sign_() if self._momentum is None else gradient)

    def _with_momentum(self, i: int, gradient: Tensor, momentum: PerRun) -> Tensor:
        return torch.sign(super()._with_momentum(i, gradient, momentum), out=gradient)


class Lion(StackOptimizer):
    """The sign of an average of gradient and momentum, with decoupled decay (Chen et al. 2023, "Symbolic discovery of
    optimization algorithms").
    """

    torch_path = "mlpexp.nn.optimizers.torch_classes.Lion"
    keys: ClassVar[tuple[str, ...]] = ("betas",)
    defaults: ClassVar[Mapping[str, Any]] = {"betas": (0.9, 0.99)}
    state_names: ClassVar[tuple[str, ...]] = ("exp_avg",)
    decoupled_decay = True
    is_adaptive = True
    can_be_captured = True

    def __init__(self, settings: UpdateSettings, parameters: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
        super().__init__(settings, parameters, gradients)
        like = parameters[0]
        self._weights = [factors(1 - beta, like) for beta in self._setting("betas").unbind(-1)]
        self._negative = [PerRun(p.new_zeros(len(p))) for p in parameters]
        self.state["exp_avg"] = self._zeros()
        self._scratch = [torch.empty_like(p) for p in parameters]

    def _update(self, i: int, parameter: Tensor, gradient: Tensor) -> None:
        n, mean = parameter.ndim, self.state["exp_avg"][i]
        self._negative[i].plan(-self._rate(i))
        direction = self._scratch[i].copy_(mean).lerp_(gradient, self._weights[0][n]).sign_()
        parameter.addcmul_(direction, self._negative[i].of[n])
        mean.lerp_(gradient, self._weights[1][n])


class Lbfgs(StackOptimizer):
    """`torch.optim.LBFGS`. All parameters are one vector, so that there are no rates or decays per parameter."""

    torch_path = "torch.optim.LBFGS"
    keys = ("max_iter", "history_size", "line_search_fn")
    has_decay = False
    is_adaptive = None
    trains_alone = "optimizer.name=lbfgs evaluates the loss a different number of times in each run"
