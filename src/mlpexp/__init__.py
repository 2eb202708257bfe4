"""Experiments on multilayer perceptrons: one command, an answer with error bars."""

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from mlpexp import sweep

if TYPE_CHECKING:
    from mlpexp.api import load_run, load_sweep, run
    from mlpexp.api.estimators import MLPClassifier, MLPRegressor, StackedSearchCV
    from mlpexp.runtime.errors import ConfigError, Error, RunsFailed, UserError
    from mlpexp.store.results_table import load_results

__all__ = [
    "ConfigError",
    "Error",
    "MLPClassifier",
    "MLPRegressor",
    "RunsFailed",
    "StackedSearchCV",
    "UserError",
    "load_results",
    "load_run",
    "load_sweep",
    "run",
    "sweep",
]

# late: importing the package must stay instant
_PLACES = {
    **dict.fromkeys(("load_run", "load_sweep", "run"), "mlpexp.api"),
    **dict.fromkeys(("MLPClassifier", "MLPRegressor", "StackedSearchCV"), "mlpexp.api.estimators"),
    **dict.fromkeys(("ConfigError", "Error", "RunsFailed", "UserError"), "mlpexp.runtime.errors"),
    "load_results": "mlpexp.store.results_table",
}


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        from mlpexp.runtime import signals

        with signals.importing():
            return getattr(import_module(_PLACES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)


class _CallablePackage(ModuleType):
    """The package `mlpexp.sweep`, which is also the function of that name: `mlpexp.sweep({"seed": range(5)})`."""

    def __call__(self, *settings: Any, **more: Any) -> Any:
        """See `mlpexp.api.sweep`."""
        from mlpexp import api

        return api.sweep(*settings, **more)


sweep.__class__ = _CallablePackage
