"""The class of a user-defined network: found by its import path, built with its own arguments and initial weights."""

from __future__ import annotations

import inspect
import json
import random
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from mlpexp.nn.lazy_torch import nn, torch
from mlpexp.runtime import source_digest, user_imports
from mlpexp.runtime.errors import UserError, described

# names of arguments that are filled with the numbers of features and of outputs, unless they are given
_DIRECTIONS = (("in", "input", "inputs", "feature", "features"), ("out", "output", "outputs", "class", "classes"))
INPUTS, OUTPUTS = (
    {word for word in words if word.endswith("s")}
    | {form.format(word) for word in words for form in ("num_{}", "n_{}", "d_{}", "dim_{}", "{}_size", "{}_dim")}
    | {f"{words[0]}_features"}
    for words in _DIRECTIONS
)
_digests: dict[str, tuple[object, str]] = {}  # by module: the times of its files, the digest of its source


def load(target: str, *, recorded: str | None = None) -> tuple[type[nn.Module], str]:
    """The class, and the digest of its source; of an installed package, its name and version.

    Args:
        target: `module.Class`; the module is looked for in the working directory, too.
        recorded: the digest in the files of a run, which another person may have written.

    Raises:
        UserError: there is no such class of torch.nn.Module, or its source is not the recorded one.
    """
    check_name(target)
    key = f"model._target_={target}"
    module_name, _, class_name = target.rpartition(".")
    user_imports.add_to_search_path(Path.cwd())
    file = _source_file(module_name, key)
    if recorded is not None:
        user_imports.refuse_run_directory(file, f"{key}: {file.name}")
    digest = _installed(target.partition(".")[0], file) or _current_digest(module_name, file)
    if recorded is not None and digest != recorded:
        raise UserError(
            f"{key} has changed since the run was started: its source is {digest[:12]}, not {recorded[:12]}; restore "
            f"{file.name}, or train the run anew"
        )
    cls = getattr(user_imports.import_module(module_name, key), class_name, None)
    if cls is None:
        raise UserError(f"{key}: {file} has no class {class_name}")
    if not isinstance(cls, type) or not issubclass(cls, nn.Module):
        raise UserError(f"{key} is no class of torch.nn.Module; name one, e.g. model._target_={module_name}.MyNetwork")
    return cls, digest


def check_name(target: str) -> None:
    """Check that a user-defined class can have this name; nothing is imported.

    Raises:
        UserError: it cannot.
    """
    key = f"model._target_={target}"
    if "." not in target or not all(part.isidentifier() for part in target.split(".")):
        raise UserError(f"{key}: give module and class, e.g. model._target_=my_module.MyNetwork")
    top = target.partition(".")[0]
    if top in sys.stdlib_module_names or top == "mlpexp":
        raise UserError(f"{key} is no network of yours; give module and class, e.g. model._target_=my_module.MyNetwork")


def arguments_of(cls: type[nn.Module]) -> Mapping[str, inspect.Parameter]:
    """The arguments of a class that can be given by name; `**name` among them."""
    parameters = inspect.signature(cls).parameters
    return {name: parameter for name, parameter in parameters.items() if parameter.kind is not parameter.VAR_POSITIONAL}


def takes_any(cls: type[nn.Module]) -> bool:
    """Whether the class has an argument `**name`."""
    return any(parameter.kind is parameter.VAR_KEYWORD for parameter in arguments_of(cls).values())


def construct(cls: type[nn.Module], target: str, arguments_json: str, sizes: tuple[int, int], seed: int) -> nn.Module:
    """A module whose constructor has drawn the initial weights with this seed; the random state is restored.

    Args:
        arguments_json: its own arguments.
        sizes: the numbers of features and of outputs, for arguments that are named so.

    Raises:
        UserError: the constructor raises, or has further arguments without a default.
    """
    arguments: dict[str, Any] = json.loads(arguments_json)
    for name, parameter in arguments_of(cls).items():
        if name in arguments or parameter.kind is parameter.VAR_KEYWORD:
            continue
        if name in INPUTS or name in OUTPUTS:
            arguments[name] = sizes[name in OUTPUTS]
        elif parameter.default is parameter.empty:
            raise UserError(
                f"model._target_={target} needs its argument {name}: add model.{name}=…; the numbers of inputs and "
                "outputs are given to arguments that are named num_inputs and num_outputs, or in_features and "
                "num_classes"
            )
    with own_random_state(seed):
        try:
            module = cls(**arguments)
            if any(nn.parameter.is_lazy(tensor) for tensor in [*module.parameters(), *module.buffers()]):
                module.eval()(torch.zeros(2, sizes[0]))
        except (Exception, SystemExit) as error:
            listed = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
            raise UserError(f"model._target_={target}({listed}) cannot be built: {described(error)}") from error
    return module


@contextmanager
def own_random_state(seed: int) -> Iterator[None]:
    """Seed the generators of Python, NumPy and torch for the block; their earlier states are restored afterwards."""
    import numpy as np

    before = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])


def _source_file(name: str, key: str) -> Path:
    """The file of a module, which is not imported; packages above it are."""
    file = user_imports.source_path(name, key)
    if name == "__main__":
        raise UserError(f"{key}: a class of a session has no source that could be recorded; write it to a file")
    if file is None or file.suffix != ".py":
        top = name.partition(".")[0]
        raise UserError(
            f"{key}: there is no module {name}; start the program in the directory of {top}.py, or install it"
        )
    return file.resolve()


@cache
def _installed(top: str, file: Path) -> str | None:
    """Name and version of the installed package that has the file; None for a file of the user."""
    if not source_digest.INSTALLED & set(file.parts):
        return None
    from importlib.metadata import packages_distributions, version  # late: slow

    names = packages_distributions().get(top, [])
    return f"{names[0]} {version(names[0])}" if names else None


def _current_digest(name: str, file: Path) -> str:
    """The digest of a module's present source. A module whose source has changed is removed, to be imported again."""
    files = source_digest.source_files(file)
    stamps = user_imports.file_stamps(files)
    earlier = _digests.get(name)
    if earlier is not None and earlier[0] == stamps:
        return earlier[1]
    digest = source_digest.file_digest(file)
    if earlier is not None and earlier[1] != digest:
        user_imports.remove_modules(files)
    _digests[name] = stamps, digest
    return digest
