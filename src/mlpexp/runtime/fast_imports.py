"""Import torch and Lightning without what only special features need: 1.1 s instead of 5.0 s of processor time.

Deferred until something uses them: `torch._dynamo`, the compiler, which Lightning imports for an `isinstance` and torch
for every optimizer; `torchmetrics` except its base classes, and with it `scipy.signal`; `torchmetrics.utilities.plot`,
and with it matplotlib; `numpy.f2py`, which scipy imports with all other names of numpy. Each stands in `sys.modules` as
a module whose own code has not run. It has the names that the imports above ask for; any other name, or a submodule of
the compiler, runs the code, so that everything works as without this module, in other versions, too. The garbage
collector, which would search each new library many times, runs less often. `MLPEXP_FAST_IMPORTS=0` turns all of it off.
(`import lightning.pytorch.trainer` saves nothing: it imports all of Lightning, 5.1 s.)
"""

import atexit
import gc
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial, wraps
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

SWITCH = "MLPEXP_FAST_IMPORTS"
ALLOCATIONS = 100_000  # between two runs of the garbage collector; Python's default is 700
COMPILER = "torch._dynamo"
PLOT = "torchmetrics.utilities.plot"
Names = Mapping[str, Callable[[], Any]]


def install() -> None:
    """Defer the modules above in this process; nothing happens where torch is imported already."""
    if os.environ.get(SWITCH) == "0" or {"torch", "torchmetrics"} & sys.modules.keys():
        return
    gc.set_threshold(ALLOCATIONS)
    atexit.register(gc.freeze)  # Python's last collection would look at every object of every library
    _waiting.update(_deferred())
    sys.meta_path.insert(0, _Finder())


def _deferred() -> dict[str, Names]:
    """Module -> the names that can be had without running its code -> how."""

    def attribute_of(module: str, name: str) -> Callable[[], Any]:
        return lambda: getattr(import_module(module), name)

    return {
        "torch._compile": {"_disable_dynamo": lambda: _disable},
        COMPILER: {
            "OptimizedModule": lambda: _OptimizedModule,
            "disable": lambda: _disable,
            "graph_break": lambda: lambda msg="": None,  # as the compiler's own outside of compiled code
        },
        "torchmetrics": {
            "_logger": lambda: logging.getLogger("torchmetrics"),
            "__version__": attribute_of("torchmetrics.__about__", "__version__"),
            "Metric": attribute_of("torchmetrics.metric", "Metric"),
            "MetricCollection": attribute_of("torchmetrics.collections", "MetricCollection"),
        },
        "torchmetrics.utilities": {"rank_zero_warn": attribute_of("torchmetrics.utilities.prints", "rank_zero_warn")},
        "numpy.f2py": {},
        PLOT: {
            "_AX_TYPE": lambda: Any,
            "_PLOT_OUT_TYPE": lambda: Any,
            "plot_single_or_multi_val": lambda: _plot,
        },
    }


_waiting: dict[str, Names] = {}


class _Finder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname.startswith(f"{COMPILER}."):
            sys.modules[COMPILER]._run()  # submodules need the package's own code
        if fullname not in _waiting:
            return None
        spec = PathFinder.find_spec(fullname, path)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, _waiting[fullname])
        return spec


class _Loader(Loader):
    def __init__(self, loader: Loader, names: Names) -> None:
        self._loader, self._names = loader, names

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Deferred(spec.name, self._loader, self._names)

    def exec_module(self, module: ModuleType) -> None:
        """The module runs its code itself, later."""


class _Deferred(ModuleType):
    """A module whose code runs when an attribute is read that is not among `names`."""

    def __init__(self, name: str, loader: Loader, names: Names) -> None:
        super().__init__(name)
        self._loader = loader
        self._names: Names | None = names  # None once the code runs

    def __getattr__(self, name: str) -> Any:
        names = vars(self).get("_names")
        if names is not None and name in names:
            try:
                return names[name]()
            except ImportError:  # another version, whose modules need each other in another order
                self._import_anew()
        elif names is not None and (name == "__all__" or not name.startswith("__")):  # `warnings` asks for others
            self._run()
        if name in vars(self):
            return vars(self)[name]
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")

    def _run(self) -> None:
        if self._names is not None:
            self._names = None
            self._loader.exec_module(self)

    def _import_anew(self) -> None:
        library = self.__name__.partition(".")[0]
        for modules in (sys.modules, _waiting):
            for name in [name for name in modules if name.partition(".")[0] == library]:
                del modules[name]
        vars(self).update(vars(import_module(self.__name__)))


def _plot(*args: Any, **kwargs: Any) -> Any:
    sys.modules[PLOT]._run()
    return sys.modules[PLOT].plot_single_or_multi_val(*args, **kwargs)


def _disable(function: Callable[..., Any] | None = None, recursive: bool = True, **options: Any) -> Callable[..., Any]:
    """The compiler's decorator that hides a function from it: applied once the compiler is there."""
    if function is None:
        return partial(_disable, recursive=recursive, **options)
    hidden: list[Callable[..., Any]] = []

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if not hidden and (disable := _of_compiler("disable")) is not None:
            hidden.append(disable(function, recursive, **options))
        return (hidden[0] if hidden else function)(*args, **kwargs)

    return call


def _of_compiler(name: str) -> Any:
    """A name of the compiler; None where it has not been imported, or its code has not run."""
    return vars(sys.modules[COMPILER]).get(name) if COMPILER in sys.modules else None


class _Compiled(type):
    def __instancecheck__(cls, instance: object) -> bool:
        real = _of_compiler("OptimizedModule")
        return real is not None and isinstance(instance, real)


class _OptimizedModule(metaclass=_Compiled):
    """Stands for the compiler's class, of which there is no instance before the compiler's code has run."""
