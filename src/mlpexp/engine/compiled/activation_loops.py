"""An activation's compiled loops, made from the compiled form in its registry entry."""

from types import FunctionType
from typing import Any

from numba import njit

from mlpexp.engine.compiled import elementary
from mlpexp.engine.compiled.vectors import LINE, load, store
from mlpexp.nn.activations import ACTIVATIONS


def activation_loops(name: str) -> tuple[Any, Any]:
    """Plain functions for numba, `activate` and `multiply_by_slope`, with this activation's name and operations.

    Raises:
        ValueError: the activation has no compiled form.
    """
    make = ACTIVATIONS[name].compiled
    if make is None:
        raise ValueError(f"the activation {name!r} has no compiled form")
    function, derivative = (_jitted(operation) for operation in make(elementary))
    return (
        _specialised(activate, f"{name}_forward", function=function),
        _specialised(multiply_by_slope, f"{name}_backward", derivative=derivative),
    )


def activate(m, pre, hidden, gradient, count):
    """Write f(x) of `count` numbers at `pre` to `hidden`."""
    for i in range(0, count, LINE):
        store(m, hidden + i, function(load(m, pre + i)))  # noqa: F821


def multiply_by_slope(m, pre, hidden, gradient, count):
    """Multiply the `count` numbers at `gradient` by dh/dx."""
    for i in range(0, count, LINE):
        slope = derivative(load(m, pre + i), load(m, hidden + i))  # noqa: F821
        store(m, gradient + i, load(m, gradient + i) * slope)


def _jitted(function: Any) -> Any:
    return function if hasattr(function, "py_func") else njit(nogil=True)(function)


def _specialised(template: Any, name: str, **names: Any) -> Any:
    """The same function with further global names; numba's cache distinguishes equal code by the function's name."""
    function = FunctionType(template.__code__, {**template.__globals__, **names}, name)
    function.__qualname__ = name
    return function
