"""What Hydra composes from the same files, remembered: it took two thirds of a small sweep's time inside the tests.

Remembered are the content of each file, the list of defaults, and the configuration that its files make, before any
value is set; values are then set by Hydra itself, as are all errors worded. The key holds all that Hydra reads up to
there: choices of files, the files' sizes and times, stored nodes. What our application stores for Hydra is stored once,
unless a plugin of the user's adds to it.
"""

import contextlib
import copy
import hashlib
import os
import pickle
from collections.abc import Iterator, MutableMapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

from hydra._internal import config_loader_impl
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.defaults_list import DefaultsList, Overrides
from hydra._internal.hydra import Hydra
from hydra.core.config_store import ConfigStore

from mlpexp.cli import hydra_app
from mlpexp.config import schema
from mlpexp.data.data_sets import DATA_SETS

Memory = MutableMapping[bytes, bytes]

_get_mode = Hydra.get_mode
_create_defaults_list = config_loader_impl.create_defaults_list
_compose = ConfigLoaderImpl._compose_config_from_defaults_list
_load_config = FileConfigSource.load_config
_process_search_path = ConfigLoaderImpl._process_config_searchpath
_register = hydra_app.register


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

    def load_config(source: FileConfigSource, config_path: str) -> Any:
        place = Path(source.path, source._normalize_file_name(config_path))
        if not place.is_file():
            return _load_config(source, config_path)
        key = hashlib.sha256(
            repr((source.provider, source.path, config_path, _version(place.stat()))).encode()
        ).digest()
        if key not in memory:
            memory[key] = pickle.dumps(_load_config(source, config_path))
        return pickle.loads(memory[key])

    with (
        mock.patch.object(config_loader_impl, "create_defaults_list", defaults_list),
        mock.patch.object(ConfigLoaderImpl, "_compose_config_from_defaults_list", compose),
        mock.patch.object(FileConfigSource, "load_config", load_config),
        mock.patch.object(CachingConfigRepository, "__init__", _share),
        mock.patch.object(ConfigLoaderImpl, "_process_config_searchpath", _search_path),
        mock.patch.object(Hydra, "get_mode", _mode),
        mock.patch.object(hydra_app, "register", _register_once),
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


def _search_path(loader: Any, config_name: str | None, overrides: list[Any], repo: Any) -> None:
    """Hydra reads the main file for places of further files each time; conf/ leaves them to the command line."""
    if any(override.get_key_element() == "hydra.searchpath" for override in overrides):
        _process_search_path(loader, config_name, overrides, repo)


def _register_once(words: Sequence[str] = ()) -> None:
    repo = ConfigStore.instance().repo
    stored = repr((schema.defaults(), [(name, entry.defaults) for name, entry in DATA_SETS.items()]))
    plain = not any(word.startswith("plugins=") for word in words)
    if plain and _registered == [stored] and "schema.yaml" in repo:
        hydra_app.register_resolvers()
        return
    _registered[:] = [stored] if plain else []
    _register(words)


_registered: list[str] = []


def _key(repo: Any, *words: object) -> bytes:
    sources = [(source.scheme(), source.path) for source in repo.get_sources()]
    files = [
        (entry.path, _version(status))
        for scheme, place in sources
        if scheme == "file"
        for entry in _yaml_files(place)
        for status in [entry.stat()]
    ]
    read = (words, sources, files, ConfigStore.instance().repo)
    return hashlib.sha256(pickle.dumps(read)).digest()


def _version(status: os.stat_result) -> tuple[int, int]:
    return status.st_mtime_ns, status.st_size


def _yaml_files(place: str) -> Iterator["os.DirEntry[str]"]:
    for entry in sorted(os.scandir(place), key=lambda entry: entry.name) if Path(place).is_dir() else ():
        if entry.is_dir():
            yield from _yaml_files(entry.path)
        elif entry.name.endswith(".yaml"):
            yield entry
