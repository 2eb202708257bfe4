"""Experiments on multilayer perceptrons: one command, an answer with error bars."""

from typing import Any

__all__ = ["load_results"]


def __getattr__(name: str) -> Any:
    # late: importing the package must stay instant
    if name == "load_results":
        from mlpexp.store.results_table import load_results

        return load_results
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
