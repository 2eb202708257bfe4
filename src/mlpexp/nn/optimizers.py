"""The optimizers: one class each, with its state and its update over a stack of runs.

Each class repeats a class of `torch.optim`, every run with its own settings and with the bits that torch's class gives
it alone. `addcmul_` with a factor per run rounds as torch's `add_(..., alpha=factor)` does for one run (both fused); a
separate multiplication and addition would not. Settings are double precision, as a run's own Python numbers are, and
are rounded to the parameters' type where torch does so.

Letters: R runs, S steps.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

from mlpexp.runtime.lazy_import import LazyModule
from mlpexp.runtime.registry import Registry

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = LazyModule("torch")


@dataclass(frozen=True, kw_only=True, slots=True)
class UpdateSettings:
    """The settings of one optimizer for a stack. The name and `shared` are uniform in the stack.

    Attributes:
        weight_decay: one value per run (R,), or such a tensor for each parameter; None means zero for all.
        per_run: the optimizer's own keys (`StackOptimizer.keys`), each (R,); a missing one means zero for all.
        shared: further arguments of torch's class, such as `betas`.
    """

    name: str = "sgd"
    weight_decay: Tensor | Sequence[Tensor] | None = None
    per_run: Mapping[str, Tensor] = field(default_factory=dict)
    shared: Mapping[str, Any] = field(default_factory=dict)

    def rows(self, runs: Tensor) -> UpdateSettings:
        """The settings of these runs."""

        def rows_of(values: Tensor) -> Tensor:
            return values[runs.to(values.device)]

        decay = self.weight_decay
        if decay is not None:
            decay = [rows_of(one) for one in decay] if not isinstance(decay, torch.Tensor) else rows_of(decay)
        return replace(self, weight_decay=decay, per_run={key: rows_of(values) for key, values in self.per_run.items()})


class StackOptimizer(ABC):
    """An optimizer over stacked parameters and gradients (R, ...), which its steps change in place.

    Class attributes:
        keys: of the configuration's `optimizer` group, beside lr and weight_decay, that this optimizer reads; torch's
            class takes arguments of the same names.
        state_names: torch's names of its state, one tensor for each parameter.
        counts_steps: torch keeps a number `step` beside each parameter's state.
        decoupled_decay: the weight decay shrinks the parameter itself, not through the gradient.
        is_adaptive: the size of a step does not follow the size of the gradient; muP's rates differ there.

    Attributes:
        state: by torch's name, one stacked tensor for each parameter.
        num_steps: taken so far.
    """

    keys: ClassVar[tuple[str, ...]] = ()
    state_names: ClassVar[tuple[str, ...]] = ()
    counts_steps: ClassVar[bool] = False
    decoupled_decay: ClassVar[bool] = False
    is_adaptive: ClassVar[bool] = False

    def __init__(self, settings: UpdateSettings, parameters: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
        self._settings, self._parameters, self._gradients = settings, parameters, gradients
        self.num_steps = self._planned_from = 0
        self._decay = WeightDecay(None if self.decoupled_decay else settings.weight_decay, parameters)
        self.state: dict[str, list[Tensor]] = {}

    @staticmethod
    @abstractmethod
    def torch_class() -> type[torch.optim.Optimizer]:
        """The class of `torch.optim` that this one repeats."""

    @classmethod
    def state_of_run(cls, settings: Any) -> tuple[str, ...]:
        """The names of the state that torch keeps for a run with these settings (`OptimizerConfig`)."""
        return cls.state_names

    @abstractmethod
    def schedule(self, lr: Tensor | Sequence[Tensor]) -> None:
        """Set the learning rates of the following steps: float64, (S, R), or (R,) for all of them.

        Args:
            lr: for all parameters, or one tensor for each.
        """

    @abstractmethod
    def step(self) -> None:
        """Change the parameters in place by their gradients, which are overwritten."""


class Sgd(StackOptimizer):
    """`torch.optim.SGD`: momentum, Nesterov and weight decay may differ from run to run, and be zero."""

    keys = ("momentum", "nesterov")
    state_names = ("momentum_buffer",)

    def __init__(self, settings: UpdateSettings, parameters: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
        super().__init__(settings, parameters, gradients)
        like = parameters[0]
        self._rates = [PerRun(like.new_zeros(len(like)))]
        momentum, nesterov = settings.per_run.get("momentum"), settings.per_run.get("nesterov")
        self._momentum = _if_any(momentum, like)
        # a run without momentum must not meet its buffer: zero times infinity would be NaN
        self._still = None if momentum is None else _if_mixed(momentum.eq(0), like)
        self._nesterov = _if_any(nesterov, like, torch.bool)
        self._nesterov_differs = self._nesterov is not None and _if_mixed(nesterov, like) is not None
        if self._momentum is not None:
            self.state["momentum_buffer"] = [torch.zeros_like(p) for p in parameters]

    @staticmethod
    def torch_class() -> type[torch.optim.Optimizer]:
        return torch.optim.SGD

    @classmethod
    def state_of_run(cls, settings: Any) -> tuple[str, ...]:
        return cls.state_names if settings.momentum > 0 else ()

    def schedule(self, lr: Tensor | Sequence[Tensor]) -> None:
        self._planned_from = self.num_steps
        rows = [lr] if isinstance(lr, torch.Tensor) else lr
        if len(rows) != len(self._rates):
            self._rates = [PerRun(p.new_zeros(len(p))) for p, _ in zip(self._parameters, rows, strict=False)]
        for rates, row in zip(self._rates, rows, strict=True):
            rates.plan(-row)

    def step(self) -> None:
        for rates in self._rates:
            rates.take(self.num_steps - self._planned_from)
        self.num_steps += 1
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


class Adam(StackOptimizer):
    """`torch.optim.Adam`: learning rate and weight decay per run, all runs at the same step."""

    state_names = ("exp_avg", "exp_avg_sq")
    counts_steps = True
    is_adaptive = True

    def __init__(self, settings: UpdateSettings, parameters: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
        super().__init__(settings, parameters, gradients)
        like = parameters[0]
        self._negative_steps = [PerRun(p.new_zeros(len(p))) for p in parameters]
        decay = settings.weight_decay
        shrinks = self.decoupled_decay and decay is not None and WeightDecay(decay, parameters).is_some
        self._penalty = (
            [row.to(like.device) for row in _each(decay, parameters)] if shrinks and decay is not None else None
        )
        self._shrink = [PerRun(p.new_ones(len(p))) for p in parameters]
        self._scratch = [torch.empty_like(p) for p in parameters]
        self._betas = settings.shared.get("betas", (0.9, 0.999))
        self._eps = settings.shared.get("eps", 1e-8)
        self.state = {name: [torch.zeros_like(p) for p in parameters] for name in self.state_names}
        self._rates: Tensor | Sequence[Tensor] = like.new_zeros(0)

    @staticmethod
    def torch_class() -> type[torch.optim.Optimizer]:
        return torch.optim.Adam

    def schedule(self, lr: Tensor | Sequence[Tensor]) -> None:
        self._planned_from = self.num_steps
        self._rates = lr

    def step(self) -> None:
        place = self.num_steps - self._planned_from
        self.num_steps += 1
        beta1, beta2 = self._betas
        one_rate = isinstance(self._rates, torch.Tensor)  # for all parameters: the numbers of the first are used
        for i, rates in enumerate([self._rates] if isinstance(self._rates, torch.Tensor) else self._rates):
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
                parameter.mul_(self._shrink[0 if one_rate else i].of[n])
            self._decay.add_to(i, gradient)
            mean.lerp_(gradient, 1 - beta1)
            square.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
            torch.sqrt(square, out=denominator).div_(root).add_(self._eps)
            torch.mul(mean, self._negative_steps[0 if one_rate else i].of[n], out=gradient)
            parameter.addcdiv_(gradient, denominator)


class AdamW(Adam):
    """`torch.optim.AdamW`: Adam whose weight decay shrinks the parameter itself."""

    decoupled_decay = True

    @staticmethod
    def torch_class() -> type[torch.optim.Optimizer]:
        return torch.optim.AdamW


OPTIMIZERS: Registry[type[StackOptimizer]] = Registry("optimizer", {"sgd": Sgd, "adam": Adam, "adamw": AdamW})


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
        """The numbers of the following steps, (S, R), or (R,) for all until the next plan."""
        self._rows = ()
        if rows.ndim == 1:
            self._values.copy_(rows)
        else:
            self._rows = rows.to(self._values).unbind()

    def take(self, step: int) -> None:
        """Load the numbers of a step of the plan, counted from 0."""
        if self._rows:
            self._values.copy_(self._rows[step])


class WeightDecay:
    """The penalty's part of the gradient, for the runs that have one.

    Attributes:
        is_some: at least one run has a penalty.
    """

    def __init__(self, weight_decay: Tensor | Sequence[Tensor] | None, parameters: Sequence[Tensor]) -> None:
        self._parameters = parameters
        first = weight_decay if weight_decay is None or isinstance(weight_decay, torch.Tensor) else weight_decay[0]
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
    return [values] * len(parameters) if isinstance(values, torch.Tensor) else values


def _if_any(values: Tensor | None, like: Tensor, dtype: torch.dtype | None = None) -> PerRun | None:
    """The values on the device of `like`, or None if all are zero."""
    if values is None or not bool(values.any()):
        return None
    return PerRun(values.to(like.device, dtype or like.dtype))


def _if_mixed(mask: Tensor | None, like: Tensor) -> PerRun | None:
    """The mask on the device of `like`, or None if all runs agree."""
    if mask is None or bool(mask.all()) or not bool(mask.any()):
        return None
    return PerRun(mask.to(like.device, torch.bool))
