"""What Hydra composes from the same files, remembered: it took two thirds of a small sweep's time inside the tests.

Remembered are the list of defaults and the configuration that its files make, before any value is set; values are then
set by Hydra itself, as are all errors worded. The key holds all that Hydra reads up to there: choices of files, the
files' sizes and times, stored nodes.
"""

import contextlib
import copy
import hashlib
import os
import pickle
from collections.abc import Iterator, MutableMapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

from hydra._internal import config_loader_impl
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository
from hydra._internal.defaults_list import DefaultsList, Overrides
from hydra._internal.hydra import Hydra
from hydra.core.config_store import ConfigStore

Memory = MutableMapping[bytes, bytes]

_get_mode = Hydra.get_mode
_create_defaults_list = config_loader_impl.create_defaults_list
_compose = ConfigLoaderImpl._compose_config_from_defaults_list


@contextlib.contextmanager
def remembered(memory: Memory) -> Iterator[None]:
    """Inside, Hydra reads the same files once; `memory` may be shared by processes."""

    def defaults_list(
        repo: Any, config_name: str | None, overrides_list: list[Any], prepend_hydra: bool, skip_missing: bool
    ) -> DefaultsList:
        values = Overrides(repo, overrides_list).config_overrides
        of_values = set(map(id, values))
        choices = [o.input_line for o in overrides_list if id(o) not in of_values and not o.is_sweep_override()]
        key = _key(repo, "defaults", config_name, choices, prepend_hydra, skip_missing)
        if key not in memory:
            made = _create_defaults_list(repo, config_name, overrides_list, prepend_hydra, skip_missing)
            kept = copy.copy(made.overrides)
            kept.config_overrides = []
            memory[key] = pickle.dumps(replace(made, config_overrides=[], overrides=kept))
            return made
        made = pickle.loads(memory[key])
        made.config_overrides = made.overrides.config_overrides = values
        return made

    def compose(loader: Any, defaults: list[Any], repo: Any) -> Any:
        key = _key(repo, "composed", *map(repr, defaults))
        if key not in memory:
            composed = _compose(loader, defaults, repo)
            memory[key] = pickle.dumps(composed)
            return composed
        return pickle.loads(memory[key])

    with (
        mock.patch.object(config_loader_impl, "create_defaults_list", defaults_list),
        mock.patch.object(ConfigLoaderImpl, "_compose_config_from_defaults_list", compose),
        mock.patch.object(CachingConfigRepository, "__init__", _share),
        mock.patch.object(Hydra, "get_mode", _mode),
    ):
        yield


def _share(caching: CachingConfigRepository, delegate: Any) -> None:
    """Hydra copies the repository deeply, all stored nodes included, though it replaces the list of sources at most."""
    caching.delegate = copy.copy(delegate)
    caching.cache = {}


def _mode(hydra: Hydra, config_name: str | None, overrides: list[str]) -> Any:
    """Hydra composes everything twice, the first time to read `hydra.mode`, which conf/ leaves to the command line."""
    if any("hydra.mode" in override or "experiment" in override for override in overrides):
        return _get_mode(hydra, config_name, overrides)
    return None


def _key(repo: Any, *words: object) -> bytes:
    sources = [(source.scheme(), source.path) for source in repo.get_sources()]
    files = [
        (entry.path, status.st_mtime_ns, status.st_size)
        for scheme, place in sources
        if scheme == "file"
        for entry in _yaml_files(place)
        for status in [entry.stat()]
    ]
    read = (words, sources, files, ConfigStore.instance().repo)
    return hashlib.sha256(pickle.dumps(read)).digest()


def _yaml_files(place: str) -> Iterator["os.DirEntry[str]"]:
    for entry in sorted(os.scandir(place), key=lambda entry: entry.name) if Path(place).is_dir() else ():
        if entry.is_dir():
            yield from _yaml_files(entry.path)
        elif entry.name.endswith(".yaml"):
            yield entry
