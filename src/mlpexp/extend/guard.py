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
from mlpexp.runtime.declared_options import Declared, OwnOption, options_of
from mlpexp.runtime.errors import UserError, described
from mlpexp.runtime.registry import Registry
from mlpexp.runtime.user_imports import user_line

Bind = Callable[[Any], Any]  # of a function or None: with the values of those options that it takes
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
        file = user_code.registrant() or (Path(defined_in) if defined_in else None)
        where = f"the plugin {file.name}" if file is not None else "this session"
        self.what = f"{kind} {self.name!r} of {where}"
        if not callable(function):
            raise UserError(f"the {self.what} is a {type(function).__name__}, not a function")
        if not _NAME.fullmatch(self.name):
            raise UserError(f"the {self.what} has no name that can be typed; give one, e.g. {kind}(name='mine')")

    def options(self) -> dict[str, OwnOption]:
        """The options that the function declares.

        Raises:
            UserError: one of them cannot be a key.
        """
        try:
            return options_of(self._function)
        except ValueError as error:
            raise self.error(str(error)) from error

    def register(self, registry: Registry[Any], make: Callable[[Bind], Any]) -> None:
        """Add what `make` returns for the options' defaults, and later for other values of theirs; it checks them."""
        options = self.options()
        defaults = {name: option.default for name, option in options.items()}

        def entry(values: Mapping[str, Any]) -> Any:
            return make(partial(_bound, options={**defaults, **values}))

        registry.register(self.name, entry({}), Declared(options, entry))

    def error(self, problem: str) -> UserError:
        return UserError(f"the {self.what} {problem}")

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """
        Raises:
            UserError: what the function raised, with its line.
        """
        try:
            return function(*arguments)
        except Exception as error:
            raise self.error(f"raised {described(error)}{user_line(error)}") from error

    def checked(self, found: Any, shape: Sequence[int], dtype: torch.dtype | None = None) -> Tensor:
        """What a function returned, if it is a tensor of this shape and type (any floating-point type for None)."""
        if not isinstance(found, Tensor):
            raise self.error(f"returned {_article(type(found).__name__)}, not a tensor of shape {tuple(shape)}")
        if tuple(found.shape) != tuple(shape):
            raise self.error(f"returned the shape {tuple(found.shape)}, not {tuple(shape)}")
        if (dtype is None and not found.is_floating_point()) or (dtype is not None and found.dtype != dtype):
            wanted = "a floating-point type" if dtype is None else str(dtype)
            raise self.error(f"returned {found.dtype}, not {wanted}")
        return found

    def finite(self, found: Tensor, where: str) -> Tensor:
        """The tensor, if all of it is finite; `where` says for what arguments."""
        if not bool(torch.isfinite(found).all()):
            bad = found[~torch.isfinite(found)][0].item()
            raise self.error(f"returned {bad} {where}")
        return found

    @contextmanager
    def read_only(self, *tensors: Tensor) -> Iterator[None]:
        """The block must not change these."""
        tensors = tuple(tensor for tensor in tensors if not tensor.is_inference())
        before = [tensor._version for tensor in tensors]
        yield
        if before != [tensor._version for tensor in tensors]:
            raise self.error("changes an argument in place, which is read-only; change a copy of it, e.g. x.clone()")


def _article(kind: str) -> str:
    return "None" if kind == "NoneType" else f"{'an' if kind[0].lower() in 'aeiou' else 'a'} {kind}"


def _bound(function: Any, options: Mapping[str, Any]) -> Any:
    known = {} if function is None else options_of(function)
    own = {name: value for name, value in options.items() if name in known}
    return partial(function, **own) if own else function


def decorator(register: Callable[..., None]) -> Callable[..., Any]:
    """`register(function, **keywords)` as a decorator, which is used with keywords or without."""

    @wraps(register)
    def decorated(function: Any = None, /, **keywords: Any) -> Any:
        if function is None:
            return partial(decorated, **keywords)
        register(function, **keywords)
        return function

    return decorated
