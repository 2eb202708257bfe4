"""The update rules of `torch.optim` over a stack, every run with its own settings and its own bits.

`addcmul_` with a factor per run rounds as torch's `add_(…, alpha=factor)` does for one run (both fused); a
multiplication and an addition apart would not. Settings are double precision, as a run's own Python numbers
are, and are rounded to the parameters' type where torch does so.

Letters: R runs, S steps.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class UpdateSettings:
    """An optimizer's settings; a tensor holds one value per run (R,), and None means zero for all.

    The weight decay may be one such tensor for each parameter.

    The name, `betas` and `eps` are uniform in a stack.
    """

    name: Literal["sgd", "adam", "adamw"] = "sgd"
    momentum: Tensor | None = None
    nesterov: Tensor | None = None
    weight_decay: Tensor | Sequence[Tensor] | None = None
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8

    def rows(self, runs: Tensor) -> "UpdateSettings":
        """The settings of these runs."""

        def of(values: Tensor) -> Tensor:
            return values[runs.to(values.device)]

        picked: dict[str, Any] = {
            name: of(values) if isinstance(values, Tensor) else [of(one) for one in values]
            for name in ("momentum", "nesterov", "weight_decay")
            if (values := getattr(self, name)) is not None
        }
        return replace(self, **picked)


class PerRun:
    """One number per run, shaped to multiply a stacked parameter.

    Attributes:
        of: by the parameter's number of dimensions, views (R, 1) and (R, 1, 1).
    """

    def __init__(self, values: Tensor) -> None:
        self._values = values
        self.of = {2: values.view(-1, 1), 3: values.view(-1, 1, 1)}
        self._rows: tuple[Tensor, ...] = ()

    def plan(self, rows: Tensor) -> None:
        """The numbers for the steps to come, (S, R), or (R,) for as long as nothing else is said."""
        self._rows = ()
        if rows.ndim == 1:
            self._values.copy_(rows)
        else:
            self._rows = rows.to(self._values).unbind()

    def take(self, step: int) -> None:
        """Bring the numbers of this step of the plan, from 0."""
        if self._rows:
            self._values.copy_(self._rows[step])


def make_update(settings: UpdateSettings, parameters: Sequence[Tensor], gradients: Sequence[Tensor]) -> "Sgd | Adam":
    """The rule that `settings` name, for stacked parameters and gradients (R, …)."""
    return (Sgd if settings.name == "sgd" else Adam)(settings, parameters, gradients)


class Sgd:
    """`torch.optim.SGD`: momentum, Nesterov and weight decay may differ from run to run, and be zero.

    Attributes:
        state: by torch's name of it, one stacked tensor for each parameter.
        num_steps: taken so far.
    """

    def __init__(self, settings: UpdateSettings, parameters: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
        self._parameters, self._gradients = parameters, gradients
        self.num_steps = self._planned_from = 0
        like = parameters[0]
        self._rates = [PerRun(like.new_zeros(len(like)))]
        self._decay = WeightDecay(settings.weight_decay, parameters)
        self._momentum = _if_any(settings.momentum, like)
        # a run without momentum must not meet its buffer: zero times infinity would be NaN
        self._still = None if settings.momentum is None else _if_mixed(settings.momentum.eq(0), like)
        self._nesterov = _if_any(settings.nesterov, like, torch.bool)
        self._nesterov_differs = self._nesterov is not None and _if_mixed(settings.nesterov, like) is not None
        self.state: dict[str, list[Tensor]] = {}
        if self._momentum is not None:
            self.state["momentum_buffer"] = [torch.zeros_like(p) for p in parameters]

    @property
    def is_plain(self) -> bool:
        """Neither momentum nor weight decay in any run, and one rate for all parameters."""
        return self._momentum is None and not self._decay.is_some and len(self._rates) == 1

    @property
    def negative_rates(self) -> PerRun:
        """Minus the learning rates of the present step, where they are those of all parameters."""
        return self._rates[0]

    def schedule(self, lr: Tensor | Sequence[Tensor]) -> None:
        """Say the learning rates of the steps to come: (S, R) or, for all of them, (R,); float64.

        Args:
            lr: for all parameters, or one for each.
        """
        self._planned_from = self.num_steps
        rows = [lr] if isinstance(lr, Tensor) else lr
        if len(rows) != len(self._rates):
            self._rates = [PerRun(p.new_zeros(len(p))) for p, _ in zip(self._parameters, rows, strict=False)]
        for rates, row in zip(self._rates, rows, strict=True):
            rates.plan(-row)

    def begin(self) -> None:
        """Bring the learning rates of the next step."""
        for rates in self._rates:
            rates.take(self.num_steps - self._planned_from)
        self.num_steps += 1

    def step(self) -> None:
        """Change the parameters in place by their gradients, which are overwritten."""
        self.begin()
        for i, (parameter, gradient) in enumerate(zip(self._parameters, self._gradients, strict=True)):
            self._decay.add_to(i, gradient)
            step = gradient if self._momentum is None else self._with_momentum(i, gradient, self._momentum)
            parameter.addcmul_(step, self._rates[i if len(self._rates) > 1 else 0].of[parameter.ndim])

    def _with_momentum(self, i: int, gradient: Tensor, momentum: PerRun) -> Tensor:
        n = gradient.ndim
        buffer = self.state["momentum_buffer"][i]
        if self._still is not None:
            buffer.masked_fill_(self._still.of[n], 0.0)
        buffer.mul_(momentum.of[n]).add_(gradient)
        if self._nesterov is None:
            return buffer
        gradient.addcmul_(buffer, momentum.of[n])
        if self._nesterov_differs:
            torch.where(self._nesterov.of[n], gradient, buffer, out=gradient)
        return gradient


class Adam:
    """`torch.optim.Adam` and `AdamW`: learning rate and weight decay per run, all runs at the same step.

    Attributes: as of `Sgd`.
    """

    is_plain = False

    def __init__(self, settings: UpdateSettings, parameters: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
        self._parameters, self._gradients, self._settings = parameters, gradients, settings
        self.num_steps = self._planned_from = 0
        like = parameters[0]
        self._negative_steps = [PerRun(p.new_zeros(len(p))) for p in parameters]
        decoupled = settings.name == "adamw"
        self._decay = WeightDecay(None if decoupled else settings.weight_decay, parameters)
        shrinks = decoupled and WeightDecay(settings.weight_decay, parameters).is_some
        self._penalty = (
            [row.to(like.device) for row in _each(settings.weight_decay, parameters)]
            if shrinks and settings.weight_decay is not None
            else None
        )
        self._shrink = [PerRun(p.new_ones(len(p))) for p in parameters]
        self._scratch = [torch.empty_like(p) for p in parameters]
        self.state: dict[str, list[Tensor]] = {
            "exp_avg": [torch.zeros_like(p) for p in parameters],
            "exp_avg_sq": [torch.zeros_like(p) for p in parameters],
        }
        self._rates: Tensor | Sequence[Tensor] = like.new_zeros(0)

    def schedule(self, lr: Tensor | Sequence[Tensor]) -> None:
        """Say the learning rates of the steps to come, as to `Sgd.schedule`."""
        self._planned_from = self.num_steps
        self._rates = lr

    def step(self) -> None:
        """Change the parameters in place by their gradients, which are overwritten."""
        place = self.num_steps - self._planned_from
        self.num_steps += 1
        beta1, beta2 = self._settings.betas
        alike = isinstance(self._rates, Tensor)  # then the numbers of the first serve all parameters
        for i, rates in enumerate([self._rates] if isinstance(self._rates, Tensor) else self._rates):
            now = rates if rates.ndim == 1 else rates[place]
            self._negative_steps[i].plan(-(now / (1 - beta1**self.num_steps)))
            if self._penalty is not None:
                self._shrink[i].plan(1 - now * self._penalty[i])
        root = (1 - beta2**self.num_steps) ** 0.5
        averages = zip(self.state["exp_avg"], self.state["exp_avg_sq"], self._scratch, strict=True)
        for i, (mean, square, denominator) in enumerate(averages):
            parameter, gradient = self._parameters[i], self._gradients[i]
            n = parameter.ndim
            if self._penalty is not None:
                parameter.mul_(self._shrink[0 if alike else i].of[n])
            self._decay.add_to(i, gradient)
            mean.lerp_(gradient, 1 - beta1)
            square.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
            torch.sqrt(square, out=denominator).div_(root).add_(self._settings.eps)
            torch.mul(mean, self._negative_steps[0 if alike else i].of[n], out=gradient)
            parameter.addcdiv_(gradient, denominator)


class WeightDecay:
    """The penalty's part of the gradient, for the runs that have one.

    Attributes:
        is_some: at least one run has a penalty.
    """

    def __init__(self, weight_decay: Tensor | Sequence[Tensor] | None, parameters: Sequence[Tensor]) -> None:
        self._parameters = parameters
        first = weight_decay if weight_decay is None or isinstance(weight_decay, Tensor) else weight_decay[0]
        # which runs have a penalty is the same for every parameter
        self._factors = None
        if weight_decay is not None and _if_any(first, parameters[0]) is not None:
            self._factors = [PerRun(row.to(parameters[0])) for row in _each(weight_decay, parameters)]
        self._decays = None if first is None else _if_mixed(first.ne(0), parameters[0])
        self._scratch = [] if self._decays is None else [torch.empty_like(p) for p in parameters]
        self.is_some = self._factors is not None

    def add_to(self, i: int, gradient: Tensor) -> None:
        """Add parameter i's penalty to its gradient, in place."""
        if self._factors is None:
            return
        factor = self._factors[i]
        parameter = self._parameters[i]
        n = parameter.ndim
        if self._decays is None:
            gradient.addcmul_(parameter, factor.of[n])
            return
        # a run without a penalty must not meet its parameter: zero times infinity would be NaN
        torch.addcmul(gradient, parameter, factor.of[n], out=self._scratch[i])
        torch.where(self._decays.of[n], self._scratch[i], gradient, out=gradient)


def _each(values: Tensor | Sequence[Tensor], parameters: Sequence[Tensor]) -> Sequence[Tensor]:
    """One tensor for each parameter."""
    return [values] * len(parameters) if isinstance(values, Tensor) else values


def _if_any(values: Tensor | None, like: Tensor, dtype: torch.dtype | None = None) -> PerRun | None:
    """The values beside `like`, or None if there is nothing but zeros."""
    if values is None or not bool(values.any()):
        return None
    return PerRun(values.to(like.device, dtype or like.dtype))


def _if_mixed(mask: Tensor | None, like: Tensor) -> PerRun | None:
    """The mask beside `like`, or None if all runs agree."""
    if mask is None or bool(mask.all()) or not bool(mask.any()):
        return None
    return PerRun(mask.to(like.device, torch.bool))
