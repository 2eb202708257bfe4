"""An optimizer over a stack of runs: its settings, its state and its update.

Each class repeats a class of `torch.optim` or of `torch_classes`, every run with its own settings and with the bits
that torch's class gives it alone. `addcmul_` with a factor per run rounds as torch's `add_(..., alpha=factor)` does for
one run (both fused); a separate multiplication and addition would not. Settings are double precision, as a run's own
Python numbers are, and are rounded to the parameters' type where torch does so.

Letters: R runs, S steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, ClassVar

from mlpexp.nn.lazy_torch import Tensor, torch
from mlpexp.nn.optimizers.weight_decay import WeightDecay

if TYPE_CHECKING:
    from mlpexp.nn.network import NetworkSpec


DIMENSIONS = range(1, 7)  # of stacked parameters


@dataclass(frozen=True, kw_only=True, slots=True)
class UpdateSettings:
    """The settings of a stack's update: one optimizer for all runs, and other settings per run.

    Attributes:
        weight_decay: one value per run (R,), or such a tensor for each parameter; None means zero for all.
        decoupled: whether a run's decay shrinks its parameters instead of adding to the gradient, (R,) bool; None: as
            the optimizer does it by itself.
        per_run: the optimizer's own keys (`StackOptimizer.keys`), float64, (R,), or (R, 2) for a pair; a missing one
            has the optimizer's default, or zero.
        matrices: for each parameter, whether it is a weight matrix below the logits; only muon reads it. None: those
            with two dimensions but the last.
        extras: the settings of what is done around the optimizer's step, see `StepExtras` of the torch engine.
    """

    name: str = "sgd"
    weight_decay: Tensor | Sequence[Tensor] | None = None
    decoupled: Tensor | None = None
    per_run: Mapping[str, Tensor] = field(default_factory=dict)
    matrices: Sequence[bool] | None = None
    extras: Mapping[str, Tensor] = field(default_factory=dict)

    def rows(self, runs: Tensor) -> UpdateSettings:
        """The settings of these runs."""

        def rows_of(values: Tensor) -> Tensor:
            return values[runs.to(values.device)]

        def rows_by_key(settings: Mapping[str, Tensor]) -> dict[str, Tensor]:
            return {key: rows_of(values) for key, values in settings.items()}

        decay = self.weight_decay
        if decay is not None:
            decay = rows_of(decay) if isinstance(decay, torch.Tensor) else [rows_of(values) for values in decay]
        decoupled = None if self.decoupled is None else rows_of(self.decoupled)
        return replace(
            self,
            weight_decay=decay,
            decoupled=decoupled,
            per_run=rows_by_key(self.per_run),
            extras=rows_by_key(self.extras),
        )


class StackOptimizer:
    """An optimizer over stacked parameters and gradients (R, ...), which its steps change in place.

    A subclass writes `_update`, and `_begin_step` for numbers that all parameters share. `_setting` gives a key of the
    configuration for each run; `factors` makes of it a Python number where all runs agree, else a tensor, and `_update`
    must accept both. An argument of torch's class that is no key is added by `arguments`.

    Class attributes:
        torch_path: of the class that this one repeats, of `torch.optim` or a subclass of its `Optimizer`.
        keys: of the configuration's `optimizer` group, beside lr and weight_decay, that this optimizer reads; torch's
            class takes arguments of the same names.
        defaults: of those keys that are null in the configuration: the values of torch's class.
        state_names: torch's names of its state, one tensor for each parameter.
        counts_steps: torch keeps a number `step` beside each parameter's state.
        decoupled_decay: the weight decay shrinks the parameter itself, not through the gradient.
        has_decay: there is a weight decay.
        is_adaptive: the size of a step does not follow the size of the gradient; muP's rates differ there. None: there
            is no rule of muP for this optimizer.
        can_be_captured: a step is the same kernels with the same numbers in every epoch, so that a GPU can replay it,
            at least after `count_on_device`.
        trains_alone: why a run with this optimizer shares no stack; None where it can.

    Attributes:
        state: by torch's name, one stacked tensor for each parameter.
    """

    torch_path: ClassVar[str]
    keys: ClassVar[tuple[str, ...]] = ()
    defaults: ClassVar[Mapping[str, Any]] = {}
    state_names: ClassVar[tuple[str, ...]] = ()
    counts_steps: ClassVar[bool] = False
    decoupled_decay: ClassVar[bool] = False
    has_decay: ClassVar[bool] = True
    is_adaptive: ClassVar[bool | None] = False
    can_be_captured: ClassVar[bool] = False
    trains_alone: ClassVar[str | None] = None

    def __init__(self, settings: UpdateSettings, parameters: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
        self._settings, self._parameters, self._gradients = settings, parameters, gradients
        self._num_steps = self._began_at = self._planned_from = 0
        self._device_steps: Tensor | None = None  # `own_steps` as a tensor, where `count_on_device` has made one
        decoupled = settings.decoupled
        if decoupled is None and self.decoupled_decay:
            decoupled = torch.ones(len(parameters[0]), dtype=torch.bool)
        self._decay = WeightDecay(settings.weight_decay, decoupled, parameters)
        self._rates: Tensor | Sequence[Tensor] = parameters[0].new_zeros(0)
        self.state: dict[str, list[Tensor]] = {}

    @classmethod
    def torch_class(cls) -> type[torch.optim.Optimizer]:
        """The class of `torch_path`."""
        torch_class: type[torch.optim.Optimizer] = resolve_name(cls.torch_path)
        return torch_class

    @classmethod
    def arguments(cls, settings: Any) -> dict[str, Any]:
        """The values of `keys` for a run with these settings (`OptimizerConfig`): arguments of torch's class."""
        values_by_key = {key: getattr(settings, key) for key in cls.keys}
        return {key: cls.defaults.get(key) if value is None else value for key, value in values_by_key.items()}

    @classmethod
    def own_rates(cls, settings: Any, network: NetworkSpec) -> dict[str, float]:
        """The learning rates of parameters that do not have the one of `settings`, by name."""
        return {}

    @classmethod
    def group_options(cls, network: NetworkSpec, name: str) -> dict[str, Any]:
        """Options of torch's parameter group for a parameter, beside its rate and decay."""
        return {}

    @classmethod
    def state_of_run(cls, settings: Any) -> tuple[str, ...]:
        """The names of the state that torch keeps for a run with these settings (`OptimizerConfig`)."""
        return cls.state_names

    @classmethod
    def state_of_parameter(cls, settings: Any, is_matrix: bool) -> tuple[str, ...]:
        """The same for one parameter; torch's `step` among them where it is counted.

        Args:
            is_matrix: see `UpdateSettings.matrices`.
        """
        return (*(["step"] if cls.counts_steps else []), *cls.state_of_run(settings))

    @classmethod
    def further_state(cls, settings: Any, num_steps: int) -> dict[str, Tensor]:
        """State beside `state_names` that torch keeps for each parameter and that follows from the number of steps."""
        return {}

    @property
    def num_steps(self) -> int:
        """Steps taken so far."""
        return self._num_steps

    @num_steps.setter
    def num_steps(self, count: int) -> None:
        self._num_steps = count
        if self._device_steps is not None:
            self._device_steps.fill_(self.own_steps)

    @property
    def own_steps(self) -> int:
        """Steps behind the state."""
        return self._num_steps - self._began_at

    def begin_anew(self, num_steps: int) -> None:
        """Declare that the state is that of a new optimizer after `num_steps` steps; only pruning does so."""
        self._began_at = num_steps
        self.num_steps = self._num_steps

    def count_on_device(self) -> None:
        """Compute what depends on the number of steps from a tensor, which a replayed step increments."""

    def schedule(self, lr: Tensor | Sequence[Tensor]) -> None:
        """Set the learning rates of the following steps: float64, (S, R), or (R,) for all of them.

        Args:
            lr: for all parameters, or one tensor for each.
        """
        self._planned_from, self._rates = self.num_steps, lr

    def step(self) -> None:
        """Change the parameters in place by their gradients, which are overwritten."""
        self._num_steps += 1
        self._begin_step()
        for i, (parameter, gradient) in enumerate(zip(self._parameters, self._gradients, strict=True)):
            if self._decay.shrinks:
                self._decay.shrink(i, self._rate(i))
            self._decay.add_to(i, gradient)
            self._update(i, parameter, gradient)

    def _begin_step(self) -> None:
        """Prepare step number `own_steps`, counted from 1."""

    def _update(self, i: int, parameter: Tensor, gradient: Tensor) -> None:
        """Change parameter i in place by its gradient, which may be overwritten; decay has been applied."""
        raise NotImplementedError(f"{type(self).__name__} has neither `_update` nor a `step` of its own")

    def _rate(self, i: int) -> Tensor:
        """The learning rates of parameter i in the present step, (R,) float64."""
        rates = self._rates if isinstance(self._rates, torch.Tensor) else self._rates[i]
        return rates if rates.ndim == 1 else rates[self.num_steps - 1 - self._planned_from]

    def _zeros(self) -> list[Tensor]:
        """State of zeros, one tensor for each parameter."""
        return [torch.zeros_like(parameter) for parameter in self._parameters]

    def _setting(self, key: str) -> Tensor:
        """The values of a key, float64, (R,) or (R, 2)."""
        if (values := self._settings.per_run.get(key)) is not None:
            return values
        default = torch.tensor(self.defaults.get(key, 0.0), dtype=torch.float64)
        return default.expand(len(self._parameters[0]), *default.shape)


class PerRun:
    """One number per run, shaped to multiply a stacked parameter.

    Attributes:
        of: by the parameter's number of dimensions, views (R), (R, 1), (R, 1, 1), ...
    """

    def __init__(self, values: Tensor) -> None:
        self._values = values
        self.of = {ndim: values.view(-1, *[1] * (ndim - 1)) for ndim in DIMENSIONS}
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


def factors(values: Tensor, like: Tensor) -> Mapping[int, Any]:
    """One number per run by the parameter's number of dimensions; a Python number, faster, where all runs agree.

    Args:
        values: (R,) float64.
    """
    first = values[0].item()
    if bool((values == first).all()):
        return dict.fromkeys(DIMENSIONS, first)
    return PerRun(values.to(like.device, like.dtype)).of


def if_any(values: Tensor | None, like: Tensor, dtype: torch.dtype | None = None) -> PerRun | None:
    """The values on the device of `like`, or None if all are zero."""
    if values is None or not bool(values.any()):
        return None
    return PerRun(values.to(like.device, dtype or like.dtype))


def if_mixed(mask: Tensor | None, like: Tensor) -> PerRun | None:
    """The mask on the device of `like`, or None if all runs agree."""
    if mask is None or bool(mask.all()) or not bool(mask.any()):
        return None
    return PerRun(mask.to(like.device, torch.bool))
