"""Optimizers that divide by a running size of the gradient: the Adam family, RMSprop and Adagrad."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, ClassVar

from mlpexp.nn.lazy_torch import Tensor, torch
from mlpexp.nn.optimizers.stack_optimizer import (
    DIMENSIONS,
    PerRun,
    StackOptimizer,
    UpdateSettings,
    factors,
    if_any,
    if_mixed,
)


class Adam(StackOptimizer):
    """`torch.optim.Adam`: every setting per run, all runs at the same step."""

    torch_path = "torch.optim.Adam"
    keys: ClassVar[tuple[str, ...]] = ("betas", "eps")
    defaults: ClassVar[Mapping[str, Any]] = {"betas": (0.9, 0.999), "eps": 1e-8}
    state_names: ClassVar[tuple[str, ...]] = ("exp_avg", "exp_avg_sq")
    counts_steps = True
    is_adaptive: ClassVar[bool | None] = True
    can_be_captured: ClassVar[bool] = True

    def __init__(self, settings: UpdateSettings, parameters: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
        super().__init__(settings, parameters, gradients)
        like = parameters[0]
        self._negative_steps = [PerRun(p.new_zeros(len(p))) for p in parameters]
        self._scratch = [torch.empty_like(p) for p in parameters]
        betas = self._setting("betas")  # (R, 2)
        is_shared = bool((betas == betas[0]).all())  # as almost always: then one number each
        self._betas: list[Any] = [column.tolist()[: 1 if is_shared else None] for column in betas.unbind(-1)]
        self._new_mean, self._old_square, self._new_square = (
            factors(values, like) for values in (1 - betas[:, 0], betas[:, 1], 1 - betas[:, 1])
        )
        self._eps = factors(self._setting("eps"), like)
        self._root: Mapping[int, Any] = {}
        self.state = {name: self._zeros() for name in self.state_names}

    def count_on_device(self) -> None:
        self._device_steps = self._parameters[0].new_full((), self.own_steps, dtype=torch.float64)
        self._betas = [self._device_steps.new_tensor(betas) for betas in self._betas]  # each (1,) or (R,)

    def _begin_step(self) -> None:
        steps = self.own_steps if self._device_steps is None else self._device_steps.add_(1)
        mean_correction, square_correction = (_corrections(betas, steps) for betas in self._betas)
        one_rate = isinstance(self._rates, torch.Tensor)  # for all parameters: the numbers of the first are used
        for i in range(1 if one_rate else len(self._parameters)):
            rate = self._rate(i)
            self._negative_steps[i].plan(
                -(rate / (mean_correction if isinstance(mean_correction, float) else mean_correction.to(rate.device)))
            )
        self._root = _shaped(square_correction**0.5, self._parameters[0])

    def _update(self, i: int, parameter: Tensor, gradient: Tensor) -> None:
        n = parameter.ndim
        mean, denominator = self.state["exp_avg"][i], self._scratch[i]
        mean.lerp_(gradient, self._new_mean[n])
        square = self._averaged_square(i, gradient, self._old_square[n], self._new_square[n])
        torch.sqrt(square, out=denominator).div_(self._root[n]).add_(self._eps[n])
        negative = self._negative_steps[0 if isinstance(self._rates, torch.Tensor) else i]
        torch.mul(mean, negative.of[n], out=gradient)
        parameter.addcdiv_(gradient, denominator)

    def _averaged_square(self, i: int, gradient: Tensor, old_weight: Any, new_weight: Any) -> Tensor:
        """The running average of the squared gradient, updated."""
        return average_square_(self.state["exp_avg_sq"][i], gradient, old_weight, new_weight, self._scratch[i])


class AdamW(Adam):
    """`torch.optim.AdamW`: Adam whose weight decay shrinks the parameter itself."""

    torch_path = "torch.optim.AdamW"
    decoupled_decay = True


class NAdam(Adam):
    """`torch.optim.NAdam`: Adam with Nesterov momentum (Dozat 2016)."""

    torch_path = "torch.optim.NAdam"
    can_be_captured = False

    def __init__(self, settings: UpdateSettings, parameters: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
        super().__init__(settings, parameters, gradients)
        self._steps_of_gradient = [PerRun(p.new_zeros(len(p))) for p in parameters]
        self._product, self._num_products = parameters[0].new_ones(len(parameters[0]), device="cpu"), 0

    @classmethod
    def state_of_parameter(cls, settings: Any, is_matrix: bool) -> tuple[str, ...]:
        return (*super().state_of_parameter(settings, is_matrix), "mu_product")

    @classmethod
    def further_state(cls, settings: Any, num_steps: int) -> dict[str, Tensor]:
        return {"mu_product": torch.tensor(_momentum_product(cls.arguments(settings)["betas"][0], num_steps))}

    def _begin_step(self) -> None:
        beta1 = self._setting("betas")[:, 0]
        if self._num_products >= self.own_steps:  # the state is that of a new optimizer
            self._product.fill_(1.0)
            self._num_products = 0
        while self._num_products < self.own_steps:  # more than once after a resumption
            self._num_products += 1
            self._product.mul_((beta1 * _momentum(self._num_products)).float())
        mu, following = (beta1 * _momentum(step) for step in (self.own_steps, self.own_steps + 1))
        product = self._product.double()
        for i in range(1 if isinstance(self._rates, torch.Tensor) else len(self._parameters)):
            lr = self._rate(i)
            device = lr.device
            self._steps_of_gradient[i].plan(-lr * ((1.0 - mu).to(device)) / (1.0 - product).to(device))
            self._negative_steps[i].plan((-lr * following.to(device)) / (1.0 - product * following).to(device))
        self._root = _shaped(_corrections(self._betas[1], self.own_steps), self._parameters[0])

    def _update(self, i: int, parameter: Tensor, gradient: Tensor) -> None:
        n = parameter.ndim
        mean, denominator = self.state["exp_avg"][i], self._scratch[i]
        mean.lerp_(gradient, self._new_mean[n])
        square = self._averaged_square(i, gradient, self._old_square[n], self._new_square[n])
        torch.div(square, self._root[n], out=denominator).sqrt_().add_(self._eps[n])
        place = 0 if isinstance(self._rates, torch.Tensor) else i
        parameter.addcdiv_(gradient.mul_(self._steps_of_gradient[place].of[n]), denominator)
        torch.mul(mean, self._negative_steps[place].of[n], out=gradient)
        parameter.addcdiv_(gradient, denominator)


class RmsProp(StackOptimizer):
    """`torch.optim.RMSprop`, not centred (Tieleman & Hinton 2012); the running square keeps `alpha` of itself."""

    torch_path = "torch.optim.RMSprop"
    keys: ClassVar[tuple[str, ...]] = ("alpha", "eps", "momentum")
    defaults: ClassVar[Mapping[str, Any]] = {"alpha": 0.99, "eps": 1e-8}
    state_names: ClassVar[tuple[str, ...]] = ("square_avg", "momentum_buffer")
    counts_steps = True
    is_adaptive = True
    can_be_captured = True

    def __init__(self, settings: UpdateSettings, parameters: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
        super().__init__(settings, parameters, gradients)
        like = parameters[0]
        alpha, momentum = self._setting("alpha"), self._setting("momentum")
        self._old_square, self._new_square = factors(alpha, like), factors(1 - alpha, like)
        self._eps = factors(self._setting("eps"), like)
        self._negative = [PerRun(p.new_zeros(len(p))) for p in parameters]
        self._scratch = [torch.empty_like(p) for p in parameters]
        self._momentum = if_any(momentum, like)
        self._without_momentum = if_mixed(momentum.eq(0), like)
        self.state["square_avg"] = self._zeros()
        if self._momentum is not None:
            self.state["momentum_buffer"] = self._zeros()

    @classmethod
    def state_of_run(cls, settings: Any) -> tuple[str, ...]:
        return cls.state_names if settings.momentum > 0 else cls.state_names[:1]

    def _update(self, i: int, parameter: Tensor, gradient: Tensor) -> None:
        n = parameter.ndim
        denominator = self._scratch[i]
        square = average_square_(
            self.state["square_avg"][i], gradient, self._old_square[n], self._new_square[n], denominator
        )
        torch.sqrt(square, out=denominator).add_(self._eps[n])
        self._negative[i].plan(-self._rate(i))
        negative = self._negative[i].of[n]
        if self._momentum is None:
            parameter.addcdiv_(gradient.mul_(negative), denominator)
            return
        buffer = self.state["momentum_buffer"][i]
        if self._without_momentum is None:
            buffer.mul_(self._momentum.of[n]).addcdiv_(gradient, denominator)
            parameter.addcmul_(buffer, negative)
            return
        buffer.masked_fill_(self._without_momentum.of[n], 0.0)  # zero times infinity would be NaN
        buffer.mul_(self._momentum.of[n]).addcdiv_(gradient, denominator)
        # two roundings differ: a run without momentum divides and multiplies as torch does for it
        moved = torch.addcmul(parameter, buffer, negative)
        parameter.addcdiv_(gradient.mul_(negative), denominator)
        torch.where(self._without_momentum.of[n], parameter, moved, out=parameter)


class Adagrad(StackOptimizer):
    """`torch.optim.Adagrad` (Duchi et al. 2011)."""

    torch_path = "torch.optim.Adagrad"
    keys: ClassVar[tuple[str, ...]] = ("eps",)
    defaults: ClassVar[Mapping[str, Any]] = {"eps": 1e-10}
    state_names: ClassVar[tuple[str, ...]] = ("sum",)
    counts_steps = True
    is_adaptive = True
    can_be_captured = True

    def __init__(self, settings: UpdateSettings, parameters: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
        super().__init__(settings, parameters, gradients)
        self._eps = factors(self._setting("eps"), parameters[0])
        self._negative = [PerRun(p.new_zeros(len(p))) for p in parameters]
        self._scratch = [torch.empty_like(p) for p in parameters]
        self.state["sum"] = self._zeros()

    def _update(self, i: int, parameter: Tensor, gradient: Tensor) -> None:
        n, denominator = parameter.ndim, self._scratch[i]
        total = self.state["sum"][i].addcmul_(gradient, gradient)
        torch.sqrt(total, out=denominator).add_(self._eps[n])
        self._negative[i].plan(-self._rate(i))
        parameter.addcdiv_(gradient.mul_(self._negative[i].of[n]), denominator)


def _corrections(betas: Any, num_steps: Any) -> Any:
    """1 - beta**steps, by Python's power as torch computes it for one run: a number for one beta, else (R,).

    Args:
        betas: a list of numbers, or a tensor where `num_steps` is one.
    """
    if isinstance(betas, torch.Tensor):
        return 1 - betas**num_steps
    corrections = [1 - beta**num_steps for beta in betas]
    return corrections[0] if len(corrections) == 1 else torch.tensor(corrections, dtype=torch.float64)


def _shaped(values: Any, like: Tensor) -> Mapping[int, Any]:
    """A number or (R,), by the parameter's number of dimensions."""
    return dict.fromkeys(DIMENSIONS, values) if isinstance(values, float) else PerRun(values.to(like)).of


def _momentum(step: int) -> float:
    """The share of beta1 that NAdam uses in a step, counted from 1; 4e-3 is torch's momentum_decay."""
    return float(1.0 - 0.5 * (0.96 ** (step * 4e-3)))


@cache
def _momentum_product(beta: float, num_steps: int) -> float:
    """torch's mu_product, rounded to float32 in each step."""
    product = torch.ones(())
    for step in range(1, num_steps + 1):
        product *= beta * _momentum(step)
    return product.item()


def average_square_(square: Tensor, gradient: Tensor, old_weight: Any, new_weight: Any, scratch: Tensor) -> Tensor:
    """old_weight * square + new_weight * gradient**2 in place, as torch rounds it.

    Args:
        old_weight, new_weight: Python numbers, or tensors that broadcast over the parameter.
        scratch: overwritten where `new_weight` is a tensor.
    """
    square.mul_(old_weight)
    if isinstance(new_weight, float):
        return square.addcmul_(gradient, gradient, value=new_weight)
    return square.addcmul_(torch.mul(gradient, new_weight, out=scratch), gradient)
