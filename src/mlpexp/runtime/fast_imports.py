"""The heavy libraries imported in half the time, for the programs in `scripts/`; nothing is missing afterwards.

Lightning imports torch's compiler for one `isinstance`, torch imports it when an optimizer is made, and Lightning
imports torchmetrics, with all its metrics, scipy.signal and matplotlib, for two classes. Here all that is imported when
something asks for more of it. Python's garbage collector, which would look through each new library again and again and
find nothing, waits until they are imported, and then leaves them alone: also at the end of the program, and in a copied
process, whose memory stays shared.
"""

import gc
import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial, wraps
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

HEAVY = ("torch", "lightning", "sklearn", "scipy", "matplotlib", "pandas")
HIDING = "torch._compile"  # by which torch keeps its optimizers from the compiler
# packages whose own code runs when a name is asked for that is not among these: name -> module that has it
DEFERRED = {
    "torchmetrics": {
        "__version__": "torchmetrics.__about__",
        "Metric": "torchmetrics.metric",
        "MetricCollection": "torchmetrics.collections",
    },
    "torchmetrics.utilities": {"rank_zero_warn": "torchmetrics.utilities.prints"},
}
PLOT = "torchmetrics.utilities.plot"
COMPILER = "torch._dynamo"


def install() -> None:
    """From now on, in this process; a second call changes nothing."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in (*HEAVY, HIDING):
            return None
        spec = PathFinder.find_spec(fullname, path)
        if spec is not None and spec.loader is not None:
            spec.loader = _Uncollected(spec.loader)
        return spec


class _Uncollected(Loader):
    """Another loader, during which the garbage collector waits."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        if not gc.isenabled():  # below another one
            self._execute(module)
            return
        gc.disable()
        try:
            self._execute(module)
        finally:
            gc.enable()
            gc.freeze()

    def _execute(self, module: ModuleType) -> None:
        if module.__name__ == HIDING:
            self._loader.exec_module(module)
            vars(module)["_disable_dynamo"] = _hiding(vars(module)["_disable_dynamo"])
            return
        if module.__name__ != "lightning" or {COMPILER, *DEFERRED} & sys.modules.keys():
            self._loader.exec_module(module)
            return
        try:
            with _stand_ins():
                self._loader.exec_module(module)
        except Exception:  # another version, which asks for something else
            for name in [name for name in sys.modules if name.partition(".")[0] in ("lightning", "torchmetrics")]:
                if name != "lightning":
                    del sys.modules[name]
            self._loader.exec_module(module)


@contextmanager
def _stand_ins() -> Iterator[None]:
    for name, elsewhere in DEFERRED.items():
        _defer(name, elsewhere)
    sys.modules[PLOT] = _plot()
    sys.modules[COMPILER] = compiler = ModuleType(COMPILER)
    vars(compiler).update(OptimizedModule=_Compiled, disable=_disable)
    try:
        yield
    finally:  # the next import is of the real ones
        del sys.modules[PLOT], sys.modules[COMPILER]
        with suppress(AttributeError):
            delattr(sys.modules["torch"], "_dynamo")


def _defer(name: str, elsewhere: Mapping[str, str]) -> None:
    """Make a package whose modules can be imported, but whose own code has not run."""
    parent = sys.modules.get(name.rpartition(".")[0])
    spec = PathFinder.find_spec(name, getattr(parent, "__path__", None))
    if spec is None or spec.loader is None:
        raise ImportError(name)
    module = ModuleType(name)
    module.__spec__, module.__loader__, module.__package__ = spec, spec.loader, name
    module.__file__, module.__path__ = spec.origin, list(spec.submodule_search_locations or [])

    own_code = [spec.loader.exec_module]

    def asked(attribute: str) -> Any:
        if attribute in elsewhere:
            return getattr(import_module(elsewhere[attribute]), attribute)
        if own_code and (attribute == "__all__" or not attribute.startswith("__")):
            own_code.pop()(module)
            return getattr(module, attribute)
        raise AttributeError(f"module {name!r} has no attribute {attribute!r}")

    vars(module).update(__getattr__=asked, _logger=logging.getLogger(name))
    sys.modules[name] = module
    if parent is not None:
        setattr(parent, name.rpartition(".")[2], module)


def _plot() -> ModuleType:
    """What metrics need to plot themselves: types, and functions that import matplotlib when they are called."""
    module = ModuleType(PLOT)

    def asked(name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name.isupper():
            return Any

        def forward(*args: Any, **kwargs: Any) -> Any:
            return getattr(import_module(PLOT), name)(*args, **kwargs)

        return forward

    vars(module)["__getattr__"] = asked
    return module


class _Real(type):
    def __instancecheck__(cls, instance: object) -> bool:
        compiler = sys.modules.get(COMPILER)
        return compiler is not None and isinstance(instance, compiler.OptimizedModule)


def _disable(function: Callable[..., Any], recursive: bool = True, *, reason: str | None = None) -> Callable[..., Any]:
    """As the compiler's own, once there is one to hide a function from."""
    hidden: list[Callable[..., Any]] = []

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if not hidden and (compiler := sys.modules.get(COMPILER)) is not None:
            hidden.append(compiler.disable(function, recursive, reason=reason))
        return (hidden[0] if hidden else function)(*args, **kwargs)

    return call


def _hiding(original: Callable[..., Any]) -> Callable[..., Any]:
    """torch's own decorator, which imports the compiler in order to hide a function from it: once there is one."""

    def disable(function: Callable[..., Any] | None = None, recursive: bool = True) -> Callable[..., Any]:
        if function is None:
            return partial(disable, recursive=recursive)
        hidden = original(function, recursive)

        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            return (hidden if COMPILER in sys.modules else function)(*args, **kwargs)

        return call

    return disable


class _Compiled(metaclass=_Real):
    """Stands for `OptimizedModule`: there is none before torch's compiler is imported."""
