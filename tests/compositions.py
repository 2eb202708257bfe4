"""A memory of what Hydra composes: half of the time of a small run inside the tests' process, and none of it ours.

The key holds all that Hydra reads: overrides, files, stored nodes, environment. Only a test may change them.
"""

import contextlib
import hashlib
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.hydra import Hydra
from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobRuntime
from omegaconf import read_write

MOST = 400  # compositions of about 30 kB

_memory: dict[bytes, bytes] = {}
_get_mode = Hydra.get_mode
_compose = ConfigLoaderImpl._load_configuration_impl


@contextlib.contextmanager
def remembered() -> Iterator[None]:
    """Inside, Hydra composes the same once."""
    with (
        mock.patch.object(ConfigLoaderImpl, "_load_configuration_impl", _recall),
        mock.patch.object(Hydra, "get_mode", _mode),
    ):
        yield


def _mode(hydra: Hydra, config_name: str | None, overrides: list[str]) -> Any:
    """Hydra composes everything twice, the first time to read `hydra.mode`, which conf/ leaves to the command line."""
    if any("hydra.mode" in override or "experiment" in override for override in overrides):
        return _get_mode(hydra, config_name, overrides)
    return None


def _recall(loader: Any, *arguments: Any, **options: Any) -> Any:
    overrides = options.get("overrides", arguments[1] if len(arguments) > 1 else [])
    if any("searchpath" in override for override in overrides):  # files elsewhere
        return _compose(loader, *arguments, **options)
    key = _key(loader, arguments, options)
    if key in _memory:
        composed = pickle.loads(_memory[key])
        with read_write(composed.hydra):
            composed.hydra.runtime.cwd = str(Path.cwd())
        return composed
    composed = _compose(loader, *arguments, **options)
    if len(_memory) < MOST:
        _memory[key] = pickle.dumps(composed)
    return composed


def _key(loader: Any, arguments: Any, options: Any) -> bytes:
    places = [(entry.provider, entry.path) for entry in loader.get_search_path().get_path()]
    files = [
        (str(path), status.st_mtime_ns, status.st_size)
        for _, place in places
        if place is not None and (place.startswith("file://") or "://" not in place)
        for path in sorted(Path(place.removeprefix("file://")).rglob("*.yaml"))
        for status in [path.stat()]
    ]
    environment = sorted(item for item in os.environ.items() if item[0] != "PYTEST_CURRENT_TEST")
    application = JobRuntime.instance().get("name")
    read = (arguments, sorted(options.items()), places, files, environment, application, ConfigStore.instance().repo)
    return hashlib.sha256(pickle.dumps(read)).digest()
