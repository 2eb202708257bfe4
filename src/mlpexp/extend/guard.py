"""Calls of user-defined functions: an error is one line that names the function."""

import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial, wraps
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mlpexp.runtime import user_code
from mlpexp.runtime.declared_options import Declared, DeclaredOption, options_of
from mlpexp.runtime.errors import UserError, described
from mlpexp.runtime.registry import Registry
from mlpexp.runtime.user_imports import user_line

Bind = Callable[[Any], Any]  # a function or None -> the same with the values of the options that it declares
_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)


class Guard:
    """Calls one user-defined function, and names it in errors.

    Args:
        kind: e.g. "activation".
        name: in the configuration, e.g. model.activation=NAME; by default that of the function.

    Raises:
        UserError: the name cannot be typed.
    """

    def __init__(self, kind: str, name: str | None, function: Any) -> None:
        self._function = function
        self.name = str(getattr(function, "__name__", type(function).__name__)) if name is None else name
        module = sys.modules.get(getattr(function, "__module__", "") or "")
        defined_in = getattr(module, "__file__", None)
        file = user_code.registering_file() or (Path(defined_in) if defined_in else None)
        origin = f"the plugin {file.name}" if file is not None else "this session"
        self.description = f"{kind} {self.name!r} of {origin}"
        if not callable(function):
            raise UserError(f"the {self.description} is a {type(function).__name__}, not a function")
        if not _NAME.fullmatch(self.name):
            raise UserError(f"the {self.description} has no name that can be typed; give one, e.g. {kind}(name='mine')")

    def options(self) -> dict[str, DeclaredOption]:
        """The options that the function declares.

        Raises:
            UserError: one of them cannot be a key.
        """
        try:
            return options_of(self._function)
        except ValueError as error:
            raise self.error(str(error)) from error

    def register(self, registry: Registry[Any], make: Callable[[Bind], Any]) -> None:
        """Add an entry: `make` makes and checks it, now with the options' defaults and later with other values."""
        options = self.options()
        defaults = {name: option.default for name, option in options.items()}

        def entry(values: Mapping[str, Any]) -> Any:
            return make(partial(_bound, options={**defaults, **values}))

        registry.register(self.name, entry({}), Declared(options, entry))

    def error(self, problem: str) -> UserError:
        return UserError(f"the {self.description} {problem}")

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """The result of the function.

        Raises:
            UserError: what the function raised, with its line.
        """
        try:
            return function(*arguments)
        except Exception as error:
            raise self.error(f"raised {described(error)}{user_line(error)}") from error

    def checked(self, result: Any, shape: Sequence[int], dtype: torch.dtype | None = None) -> Tensor:
        """The result of a function, if it is a tensor of this shape and type (any floating-point type for None)."""
        if not isinstance(result, Tensor):
            raise self.error(f"returned {_article(type(result).__name__)}, not a tensor of shape {tuple(shape)}")
        if tuple(result.shape) != tuple(shape):
            raise self.error(f"returned the shape {tuple(result.shape)}, not {tuple(shape)}")
        if (dtype is None and not result.is_floating_point()) or (dtype is not None and result.dtype != dtype):
            expected = "a floating-point type" if dtype is None else str(dtype)
            raise self.error(f"returned {result.dtype}, not {expected}")
        return result

    def finite(self, values: Tensor, condition: str) -> Tensor:
        """The tensor, if all of it is finite; `condition` says for which arguments."""
        if not bool(torch.isfinite(values).all()):
            bad = values[~torch.isfinite(values)][0].item()
            raise self.error(f"returned {bad} {condition}")
        return values

    def gradient(self, function: Callable[[Tensor], Tensor], x: Tensor, missing: str) -> Tensor:
        """The derivative of the sum of `function(x)` by autograd, in the shape of x.

        Args:
            missing: the problem where the result does not depend on x for autograd.

        Raises:
            UserError: it does not.
        """
        with torch.enable_grad():
            leaf = x.detach().clone().requires_grad_()
            result = function(leaf)
            if not result.requires_grad:
                raise self.error(missing)
            return torch.autograd.grad(result.sum(), leaf)[0]

    @contextmanager
    def read_only(self, *tensors: Tensor) -> Iterator[None]:
        """For a block that must not change these tensors.

        Raises:
            UserError: it has changed one of them.
        """
        tensors = tuple(tensor for tensor in tensors if not tensor.is_inference())
        before = [tensor._version for tensor in tensors]
        yield
        if before != [tensor._version for tensor in tensors]:
            raise self.error("changes an argument in place, which is read-only; change a copy of it, e.g. x.clone()")


def _article(kind: str) -> str:
    return "None" if kind == "NoneType" else f"{'an' if kind[0].lower() in 'aeiou' else 'a'} {kind}"


def _bound(function: Any, options: Mapping[str, Any]) -> Any:
    declared = {} if function is None else options_of(function)
    values = {name: value for name, value in options.items() if name in declared}
    return partial(function, **values) if values else function


def decorator(register: Callable[..., None]) -> Callable[..., Any]:
    """`register(function, **keywords)` as a decorator, which is used with keywords or without."""

    @wraps(register)
    def decorated(function: Any = None, /, **keywords: Any) -> Any:
        if function is None:
            return partial(decorated, **keywords)
        register(function, **keywords)
        return function

    return decorated
