"""The compiled functions of the engine: each is compiled when it is first used, or loaded from the user's cache.

Functions are passed as pointers: `train` calls the product, the activation and the optimizer that it is given. So each
is compiled once for all, and a sweep compiles what it uses. This file imports numba late.
"""

import hashlib
import inspect
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mlpexp.config.schema import Config
from mlpexp.engine.compiled import cache_directory
from mlpexp.engine.compiled.availability import activation_of, draws
from mlpexp.nn import activation_formulas, activations
from mlpexp.nn.activations import ACTIVATIONS

PACKAGE = "mlpexp."
SECONDS = {"product": 2, "train": 4, "evaluate": 2}  # to compile; one for each of the others


@cache
def function(module: str, name: str) -> Any:
    """A function of `matrix_kernels`, `kernels` or `updates`."""
    source = import_module(f"mlpexp.engine.compiled.{module}")
    source_function = getattr(source, name)
    return _compiled(getattr(source_function, "py_func", source_function), source.SIGNATURES[name])


@cache
def activation(name: str) -> tuple[Any, Any]:
    """The loops of an activation, see `activation_loops.py`."""
    from mlpexp.engine.compiled import activation_loops, vectors

    # a form from a plugin may change between two processes without a trace in the name of the cache
    is_cached = str(getattr(ACTIVATIONS[name].compiled, "__module__", "")).startswith(PACKAGE)
    forward, backward = activation_loops.activation_loops(name)
    return _compiled(forward, vectors.LOOP, is_cached=is_cached), _compiled(backward, vectors.LOOP, is_cached=is_cached)


def load_kernels(configs: Sequence[Config], announce: Callable[[str], None]) -> None:
    """Compile what these runs need, or load it from the cache, once in a process.

    Args:
        configs: the compiled engine is that of those with `stack.engine=compiled`; for orders and initial values those
            on a GPU count, too.
        announce: called with one line where compiling takes its time.
    """
    compiled = [cfg for cfg in configs if cfg.stack.engine == "compiled"]
    activations = sorted({activation_of(cfg.model.network(1, 2)) for cfg in compiled})
    functions = [("matrix_kernels", "product"), ("kernels", "train"), ("kernels", "evaluate")] if compiled else []
    functions += [("updates", name) for name in sorted({cfg.optimizer.name for cfg in compiled})]
    if draws(configs):
        functions += [("random_draws", "permutations"), ("random_draws", "uniforms")]
    names = [name for _, name in functions] + [
        f"{name}_{way}" for name in activations for way in ("forward", "backward")
    ]
    directory = directory_of_cache()
    new = [name for name in names if directory is None or not any(directory.rglob(f"*.{name}-*.nbi"))]
    if new:
        seconds = sum(SECONDS.get(name, 1) for name in new)
        often = (
            "in every sweep, because the user's cache is not writable" if directory is None else "once on this machine"
        )
        announce(f"compiling {len(new)} functions of the engine, {often}: about {seconds} seconds")
    for module, name in functions:
        function(module, name)
    for name in activations:
        activation(name)


def directory_of_cache() -> Path | None:
    """The directory for numba's compile cache, below the user's cache folder; None where it cannot be written.

    It is named after the sources: numba itself looks only at the file of the function that it compiles, and would use
    old code after a change in another one.
    """
    content = hashlib.sha256(version("numba").encode())
    forms = [Path(inspect.getfile(module)) for module in (activations, activation_formulas)]
    for path in [*sorted(Path(__file__).parent.glob("*.py")), *forms]:
        content.update(path.read_bytes())
    return cache_directory.opened(Path(__file__).parent, content.hexdigest())


def _compiled(function: Any, signature: Any, *, is_cached: bool = True) -> Any:
    from numba import njit

    directory = directory_of_cache() if is_cached else None
    with _numba_cache(directory):
        return njit([signature], nogil=True, error_model="numpy", cache=directory is not None)(function)


@contextmanager
def _numba_cache(directory: Path | None) -> Any:
    from numba import config

    settings: Any = config
    former = settings.CACHE_DIR
    settings.CACHE_DIR = "" if directory is None else str(directory)
    try:
        yield
    finally:
        settings.CACHE_DIR = former
