"""User-defined activations, initialisers and schedules."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mlpexp.extend.guard import Guard, decorator
from mlpexp.nn.activations import ACTIVATIONS, Activation
from mlpexp.nn.initialisation import INITIALISERS, Initialiser
from mlpexp.nn.schedules import SCHEDULES, Schedule


@decorator
def activation(
    function: Callable[..., Tensor],
    /,
    *,
    name: str | None = None,
    derivative: Callable[[Tensor, Tensor], Tensor] | None = None,
    gain: float | None = None,
    kinks: Sequence[float] = (),
    gated: bool = False,
) -> None:
    """Register an activation, `model.activation=NAME`.

    Args:
        function: elementwise, x of any shape, read-only -> the same shape and type.
        derivative: (x, h) -> dh/dx; by default by autograd.
        gain: of initial weights; by default 1 / sqrt(E[f(z)^2]) for z ~ N(0, 1).
        kinks: inputs at which the derivative jumps; gradcheck stays away from them.
        gated: the function is that of a gated unit's gate: the unit is u * function(v), with u and v from two dense
            layers of `model.width` units each.

    Raises:
        UserError: it is not elementwise, changes its argument, or returns another shape, another type, or NaN.
    """
    guard = Guard("activation", name, function)
    guard.register(
        ACTIVATIONS,
        lambda bind: _activation(guard, bind(function), bind(derivative), gain, tuple(kinks), gated=gated),
    )


def _activation(
    guard: Guard,
    function: Callable[..., Tensor],
    derivative: Callable[..., Tensor] | None,
    gain: float | None,
    kinks: tuple[float, ...],
    *,
    gated: bool,
) -> Activation:
    def checked(x: Tensor) -> Tensor:
        return guard.checked(guard.call(function, x), x.shape, x.dtype)

    def by_autograd(x: Tensor, h: Tensor) -> Tensor:
        missing = "has no derivative: its result does not depend on x for autograd; give derivative="
        return guard.gradient(checked, x, missing)

    def checked_derivative(x: Tensor, h: Tensor) -> Tensor:
        return guard.checked(guard.call(derivative, x, h), x.shape, x.dtype)  # type: ignore[arg-type]

    slope = by_autograd if derivative is None else checked_derivative
    x = torch.linspace(-8, 8, 21).view(3, 7)
    with guard.read_only(x):
        h = guard.finite(checked(x), "for inputs from -8 to 8")
    if not torch.equal(h, checked(x)):
        raise guard.error("returns other values each time; a run could not be repeated")
    if not torch.allclose(checked(x[1:2, 2:5]), h[1:2, 2:5], rtol=1e-4, atol=1e-6):
        raise guard.error("is not elementwise: an element of its result depends on other elements of its argument")
    guard.finite(slope(x, h), "as its derivative for inputs from -8 to 8")
    z = torch.linspace(-8, 8, 16_001, dtype=torch.float64)
    fz = checked(z)
    if gain is None:
        square = torch.trapezoid(torch.exp(-z * z / 2) / math.sqrt(2 * math.pi) * fz**2, z).item()
        gain = square**-0.5 if square > 0 and math.isfinite(square) else 1.0
    steepest = slope(z, fz).abs().max().item() or 1.0
    return Activation(function=checked, derivative=slope, gain=gain, steepest=steepest, kinks=kinks, gated=gated)


@decorator
def initialiser(
    function: Callable[..., Tensor],
    /,
    *,
    name: str | None = None,
    bias: Callable[[int, int, torch.Generator], Tensor] | None = None,
    scales_with_fan_in: bool = False,
) -> None:
    """Register initial weights, `model.init=NAME`.

    Args:
        function: (shape (O, I), generator, the only source of randomness) -> the weight of a layer, float32 (O, I).
        bias: (O, fan-in I, generator) -> the bias (O,); by default zeros.
        scales_with_fan_in: the weights' variance is a constant over I, which muP requires.

    Raises:
        UserError: other weights each time for one seed of the generator, another shape or type, or not finite.
    """
    guard = Guard("initialiser", name, function)
    guard.register(INITIALISERS, lambda bind: _initialiser(guard, bind(function), bind(bias), scales_with_fan_in))


def _initialiser(
    guard: Guard, function: Callable[..., Tensor], bias: Callable[..., Tensor] | None, scales_with_fan_in: bool
) -> Initialiser:
    def weight(values: Tensor, generator: torch.Generator, _: float) -> None:
        shape = (values.shape[0], values.shape[1])
        drawn_weight = guard.checked(guard.call(function, shape, generator), shape, values.dtype)
        values.copy_(guard.finite(drawn_weight.detach(), f"for the shape {shape}"))

    def biases(values: Tensor, fan_in: int, generator: torch.Generator, _: float) -> None:
        assert bias is not None
        drawn_bias = guard.checked(guard.call(bias, len(values), fan_in, generator), values.shape, values.dtype)
        values.copy_(guard.finite(drawn_bias.detach(), "as a bias"))

    drawn = [torch.empty(4, 6), torch.empty(4, 6)]
    for values in drawn:
        weight(values, torch.Generator().manual_seed(0), 1.0)
    if not torch.equal(*drawn):
        raise guard.error("gives other weights for the same seed; draw random numbers with generator=generator")
    return Initialiser(weight=weight, bias=biases if bias is not None else None, scales_with_fan_in=scales_with_fan_in)


@decorator
def schedule(
    function: Callable[..., float],
    /,
    *,
    name: str | None = None,
    by_step: bool = False,
    depends_on_length: bool = True,
) -> None:
    """Register a learning-rate schedule, `optimizer.schedule=NAME`.

    Args:
        function: (elapsed, total) -> the factor of the learning rate, >= 0, in the epoch (or step) number `elapsed`,
            from 0, of `total`, both without the warm-up.
        by_step: it counts steps, not epochs.
        depends_on_length: the factor depends on the total, so that a finished training cannot be made longer.

    Raises:
        UserError: a factor is no finite number >= 0.
    """
    guard = Guard("schedule", name, function)
    guard.register(SCHEDULES, lambda bind: _schedule(guard, bind(function), by_step, depends_on_length))


def _schedule(guard: Guard, function: Callable[..., float], by_step: bool, depends_on_length: bool) -> Schedule:
    def factor(elapsed: int, total: int) -> float:
        number = guard.call(function, elapsed, total)
        if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number) or number < 0:
            raise guard.error(f"returned {number!r} for {elapsed} of {total}; a factor is a finite number >= 0")
        return float(number)

    for total in (1, 2, 10):
        for elapsed in range(total):
            factor(elapsed, total)
    if by_step:
        return Schedule(
            by_step=lambda elapsed, steps, _, __: factor(elapsed, steps), depends_on_length=depends_on_length
        )
    return Schedule(factor=lambda elapsed, epochs, _: factor(elapsed, epochs), depends_on_length=depends_on_length)
