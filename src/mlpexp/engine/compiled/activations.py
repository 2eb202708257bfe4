"""Activations as functions of vectors: one row each, and loops that apply the row with a given number.

A row gives h = f(x) and the derivative dh/dx as a function of x and h. Rows that read x in the derivative keep it
in a buffer of its own; the others are computed in place.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from numba import njit

from mlpexp.engine.compiled.elementary import (
    cos,
    expm1,
    normal_cdf,
    normal_pdf,
    sigmoid,
    sin,
    softplus,
    tanh,
)
from mlpexp.engine.compiled.vectors import LINE, fma, full, load, store, where
from mlpexp.nn.activations import LEAK


class CompiledActivation(NamedTuple):
    """One activation.

    Attributes:
        function: x -> h.
        derivative: (x, h) -> dh/dx.
        needs_input: the derivative reads x, so h must not overwrite it.
    """

    function: Callable[[Any], Any]
    derivative: Callable[[Any, Any], Any]
    needs_input: bool = False


def _silu_derivative(x: Any, h: Any) -> Any:
    s = sigmoid(x)
    return s * fma(x, 1.0 - s, 1.0)


COMPILED_ACTIVATIONS: dict[str, CompiledActivation] = {
    "tanh": CompiledActivation(tanh, lambda x, h: fma(0.0 - h, h, 1.0)),
    "relu": CompiledActivation(lambda x: where(x < 0.0, 0.0, x), lambda x, h: where(h > 0.0, 1.0, 0.0)),
    "leaky_relu": CompiledActivation(lambda x: where(x > 0.0, x, x * LEAK), lambda x, h: where(h > 0.0, 1.0, LEAK)),
    "sigmoid": CompiledActivation(sigmoid, lambda x, h: h * (1.0 - h)),
    "gelu": CompiledActivation(
        lambda x: x * normal_cdf(x), lambda x, h: fma(x, normal_pdf(x), normal_cdf(x)), needs_input=True
    ),
    "silu": CompiledActivation(lambda x: x * sigmoid(x), _silu_derivative, needs_input=True),
    "elu": CompiledActivation(lambda x: where(x > 0.0, x, expm1(x)), lambda x, h: where(h > 0.0, 1.0, h + 1.0)),
    "softplus": CompiledActivation(softplus, lambda x, h: where(x > 20.0, 1.0, sigmoid(x)), needs_input=True),
    "sine": CompiledActivation(sin, lambda x, h: cos(x), needs_input=True),
    "identity": CompiledActivation(lambda x: x, lambda x, h: full(1.0)),
}

NUMBERS = {name: number for number, name in enumerate(COMPILED_ACTIVATIONS)}


def _nothing(m, pre, hidden, gradient, count, number):
    pass


def _forward_loop(row: CompiledActivation, own: int, others: Any) -> Any:
    function = row.function if hasattr(row.function, "py_func") else njit(nogil=True)(row.function)

    @njit(nogil=True)
    def forward(m, pre, hidden, gradient, count, number):
        if number == own:
            for i in range(0, count, LINE):
                store(m, hidden + i, function(load(m, pre + i)))
        else:
            others(m, pre, hidden, gradient, count, number)

    return forward


def _backward_loop(row: CompiledActivation, own: int, others: Any) -> Any:
    derivative = njit(nogil=True)(row.derivative)

    @njit(nogil=True)
    def backward(m, pre, hidden, gradient, count, number):
        if number == own:
            for i in range(0, count, LINE):
                slope = derivative(load(m, pre + i), load(m, hidden + i))
                store(m, gradient + i, load(m, gradient + i) * slope)
        else:
            others(m, pre, hidden, gradient, count, number)

    return backward


activate: Any = njit(nogil=True)(_nothing)
"""(m, pre, hidden, gradient, count, number): write f(x) of `count` numbers at `pre` to `hidden`."""
multiply_by_slope: Any = njit(nogil=True)(_nothing)
"""The same arguments: multiply the `count` numbers at `gradient` by dh/dx."""
for _name, _row in reversed(COMPILED_ACTIVATIONS.items()):
    activate = _forward_loop(_row, NUMBERS[_name], activate)
    multiply_by_slope = _backward_loop(_row, NUMBERS[_name], multiply_by_slope)
