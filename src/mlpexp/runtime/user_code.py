"""User-defined modules (plugins): found by import name or file, imported once, identified by a digest of their source.

A plugin is given as `my_plugin.py`, `folder/my_plugin.py` or `package.module`. A loaded plugin is written
`PLACE@DIGEST`: loading that again, in a worker or to evaluate a run, gives the same source or an error of one line.
"""

import re
import sys
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

from mlpexp.runtime import source_digest, user_imports
from mlpexp.runtime.errors import UserError

_SPELLED = re.compile(r"(?P<place>.+)@(?P<digest>[0-9a-f]{64})")

REGISTRIES: list[Any] = []  # every `runtime.registry.Registry` of this process


class Loaded(NamedTuple):
    """A plugin in this process: its place (file or import name), and the digest and files of its source."""

    place: str
    digest: str
    files: tuple[Path, ...]

    @property
    def spelled(self) -> str:
        return f"{self.place}@{self.digest}"


_STARTED = time.time()
_loaded: dict[str, Loaded] = {}  # by the module's name
_cache: dict[tuple[str, Path], tuple[Any, Loaded]] = {}  # results of `load` with the stamps of the plugin's files


def load(plugin: str, home: Path, *, recorded: bool = False) -> Loaded:
    """Import a plugin, unless this process has imported it and its source has not changed since.

    Args:
        plugin: file, relative to `home`, or import name; with the digest that its source must have, if it is known.
        home: the directory in which the program was started.
        recorded: the name comes from a run's files, which another person may have written.

    Raises:
        UserError: it is not there, cannot be imported, or has another digest; names the plugin.
    """
    if (earlier := loaded(plugin)) is not None:
        return earlier
    if (cached := _cache.get((plugin, home))) is not None and cached[0] == user_imports.file_stamps(cached[1].files):
        return cached[1]
    match = _SPELLED.fullmatch(plugin)
    place, expected = (match["place"], match["digest"]) if match else (plugin, None)
    name, file = _locate(place, home, recorded=recorded, moved=expected is not None)
    files = source_digest.source_files(file)
    stamps = user_imports.file_stamps(files)
    digest = source_digest.digest(files, source_digest.root_of(file))
    if expected is not None and digest != expected:
        raise UserError(
            f"the plugin {short_name(plugin)} has changed: its source has the digest {digest[:8]}, not {expected[:8]} "
            "as when the run was started; restore it, or train a run anew"
        )
    result = _loaded.get(name)
    if result is None or result.digest != digest:
        if result is not None or not _is_imported(name, files):
            _forget(name, files if result is None else {*result.files, *files})
            _import(name, short_name(place), files)
        result = _loaded[name] = Loaded(place, digest, files)
    if file.name == Path(place).name:
        place = str(home / place)
    result = result._replace(place=place)
    _cache[plugin, home] = stamps, result
    return result


def loaded(plugin: str) -> Loaded | None:
    """The result of `load` for a plugin with its digest; None if this process has not loaded it."""
    if (match := _SPELLED.fullmatch(plugin)) is None:
        return None
    results = (result for result in _loaded.values() if result.digest == match["digest"])
    return next((result._replace(place=match["place"]) for result in results), None)


def short_name(spelled: str) -> str:
    """The plugin's name in messages: the name of its file, or its import name."""
    match = _SPELLED.fullmatch(spelled)
    place = match["place"] if match else spelled
    return Path(place).name if place.endswith(".py") else place


def without_place(spelled: str) -> str:
    """The module's name and the digest, which do not depend on the plugin's directory."""
    _, sign, digest = spelled.rpartition("@")
    return re.split(r"[./\\]", short_name(spelled).removesuffix(".py"))[-1] + sign + digest


def registering_file() -> Path | None:
    """The file of the code outside mlpexp that is registering an entry."""
    frame = sys._getframe(1)
    while frame is not None:
        name, file = frame.f_globals.get("__name__", ""), frame.f_globals.get("__file__")
        if name.partition(".")[0] != "mlpexp":
            return Path(file).resolve() if file else None
        frame = frame.f_back  # type: ignore[assignment]
    return None


def plugin_of_file(file: Path | None) -> Loaded | None:
    """The plugin of which a file is part."""
    return next((plugin for plugin in _loaded.values() if file in plugin.files), None)


def _locate(place: str, home: Path, *, recorded: bool, moved: bool) -> tuple[str, Path]:
    """The name of a plugin's module, and its file.

    Args:
        moved: the project's directory may have changed since the run was trained.
    """
    if place.endswith(".py") or "/" in place:
        name, file = _locate_file(place, home, recorded=recorded, moved=moved)
    else:
        name = place
        user_imports.add_to_search_path(home)
        file = _file_of(name, home, recorded=recorded)
    if recorded:
        user_imports.refuse_run_directory(file, f"the plugin {short_name(place)}")
    if (importable := _file_of(name, home)) != file:
        raise UserError(f"the plugin {place} has the name of another module, {importable}; rename it")
    return name, file


def _locate_file(place: str, home: Path, *, recorded: bool, moved: bool) -> tuple[str, Path]:
    """The name of the module in a file, and the file; its directory is added to the search path."""
    file = home / place
    if not file.is_file() and moved:
        file = home / Path(place).name
    if not file.is_file() and recorded:
        raise UserError(
            f"the plugin {short_name(place)} is not there: {home} has no such file"
            f"{f', nor is there {place}' if Path(place).is_absolute() else ''}; copy it to {home}, or start the "
            "program in the directory that contains it"
        )
    if not file.is_file():
        raise UserError(
            f"the plugin {place} is not there: {home} has no such file; start the program in the "
            "directory that contains it, or give its path"
        )
    file = file.resolve()
    root = source_digest.root_of(file)
    name = ".".join(file.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
    if not all(part.isidentifier() for part in name.split(".")):
        raise UserError(f"the plugin {place} cannot be imported under this name; rename it, e.g. to my_plugin.py")
    user_imports.add_to_search_path(root)
    return name, file


def _file_of(name: str, home: Path, *, recorded: bool = False) -> Path:
    """The file of the module that an import of this name gives."""
    is_name = all(part.isidentifier() for part in name.split("."))
    file = user_imports.source_path(name, f"the plugin {name}") if is_name else None
    if file is None:
        advice = "give a file, e.g. plugins=[my_plugin.py]"
        if recorded:
            advice = "install it, or start the program in the directory that contains it"
        raise UserError(f"the plugin {name} cannot be found: there is no such module, installed or in {home}; {advice}")
    if file.suffix != ".py":
        raise UserError(f"the plugin {name} has the name of another module, {file}; rename it")
    return file.resolve()


def _is_imported(name: str, files: Collection[Path]) -> bool:
    """Whether the module is imported, and its source has not changed since the program started."""
    return name in sys.modules and all(file.stat().st_mtime < _STARTED for file in files)


def _import(name: str, label: str, files: Collection[Path]) -> None:
    try:
        user_imports.import_module(name, f"the plugin {label}")
    except UserError:
        _forget(name, files)
        raise


def _forget(name: str, files: Collection[Path]) -> None:
    """Remove what a plugin has registered, and its modules, unless they are of an installed package."""
    _loaded.pop(name, None)
    user_files = {file for file in files if not source_digest.INSTALLED & set(file.parts)}
    for registry in REGISTRIES:
        for entry in registry.of_files(user_files):
            registry.remove(entry)
    user_imports.remove_modules(user_files)
