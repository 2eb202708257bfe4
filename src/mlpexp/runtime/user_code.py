"""User-defined modules (plugins): found by import name or file, imported once, identified by a digest of their source.

A plugin is given as `my_plugin.py`, `folder/my_plugin.py` or `package.module`. A loaded plugin is written
`PLACE@DIGEST`: loading that again, in a worker or to evaluate a run, gives the same source or an error of one line.
"""

import importlib
import os
import re
import sys
import time
from collections.abc import Collection, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from mlpexp.runtime import source_digest
from mlpexp.runtime.errors import UserError, described

_SPELLED = re.compile(r"(?P<place>.+)@(?P<digest>[0-9a-f]{64})")
_OF_RUNS = (("sweep.json",), ("metrics.csv", "checkpoints"))  # what the directory of a sweep, or of a run, holds

REGISTRIES: list[Any] = []  # every `runtime.registry.Registry` of this process


class Loaded(NamedTuple):
    """A plugin in this process: its place, the digest of its source, and the files of that."""

    place: str
    digest: str
    files: tuple[Path, ...]

    @property
    def spelled(self) -> str:
        return f"{self.place}@{self.digest}"


_STARTED = time.time()
_loaded: dict[str, Loaded] = {}  # by the module's name
_seen: dict[tuple[str, Path], tuple[Any, Loaded]] = {}  # with the times of its files


def load(given: str, home: Path, *, recorded: bool = False) -> Loaded:
    """Import a plugin, unless this process has imported it and its source has not changed since.

    Args:
        given: file, relative to `home`, or import name; with the digest that its source has to have, if it is known.
        home: the directory in which the program was started.
        recorded: the name comes from a run's files, which another person may have written.

    Raises:
        UserError: it is not there, cannot be imported, or has another digest; names the plugin.
    """
    if (known := loaded(given)) is not None:
        return known
    if (seen := _seen.get((given, home))) is not None and seen[0] == _stamps(seen[1].files):
        return seen[1]
    match = _SPELLED.fullmatch(given)
    place, wanted = (match["place"], match["digest"]) if match else (given, None)
    name, file = _found(place, home, recorded=recorded, moved=wanted is not None)
    files = source_digest.source_files(file)
    stamps = _stamps(files)
    digest = source_digest.digest(files, source_digest.root_of(file))
    if wanted is not None and digest != wanted:
        raise UserError(
            f"the plugin {short(given)} has changed: its source has the digest {digest[:8]}, not {wanted[:8]} as when "
            "the run was started; restore it, or train a run anew"
        )
    known = _loaded.get(name)
    if known is None or known.digest != digest:
        if known is not None or not _is_imported(name, files):
            _forget(name, files if known is None else {*known.files, *files})
            _import(name, short(place), files)
        known = _loaded[name] = Loaded(place, digest, files)
    if file.name == Path(place).name:
        place = str(home / place)
    _seen[given, home] = stamps, (placed := known._replace(place=place))
    return placed


def loaded(given: str) -> Loaded | None:
    """The result of `load` for a plugin with its digest; None if this process has not loaded it."""
    if (match := _SPELLED.fullmatch(given)) is None:
        return None
    fitting = (known for known in _loaded.values() if known.digest == match["digest"])
    return next((known._replace(place=match["place"]) for known in fitting), None)


def short(spelled: str) -> str:
    """The plugin's name in messages: the name of its file, or its import name."""
    match = _SPELLED.fullmatch(spelled)
    place = match["place"] if match else spelled
    return Path(place).name if place.endswith(".py") else place


def without_place(spelled: str) -> str:
    """The module's name and the digest, which do not depend on the plugin's directory."""
    _, at, digest = spelled.rpartition("@")
    return re.split(r"[./\\]", short(spelled).removesuffix(".py"))[-1] + at + digest


def registrant() -> Path | None:
    """The file of the code outside mlpexp that is registering an entry."""
    frame = sys._getframe(1)
    while frame is not None:
        name, file = frame.f_globals.get("__name__", ""), frame.f_globals.get("__file__")
        if name.partition(".")[0] != "mlpexp":
            return Path(file).resolve() if file else None
        frame = frame.f_back  # type: ignore[assignment]
    return None


def owner(file: Path | None) -> Loaded | None:
    """The plugin of which a file is part."""
    return next((known for known in _loaded.values() if file in known.files), None)


def _stamps(files: Sequence[Path]) -> list[tuple[int, int] | None]:
    try:
        return [((stat := file.stat()).st_mtime_ns, stat.st_size) for file in files]
    except OSError:
        return [None]


def _found(place: str, home: Path, *, recorded: bool, moved: bool) -> tuple[str, Path]:
    """The name of a plugin's module, and its file.

    Args:
        moved: the project's directory may have changed since the run was trained.
    """
    importlib.invalidate_caches()
    if place.endswith(".py") or "/" in place:
        file = home / place
        if not file.is_file() and moved:
            file = home / Path(place).name
        if not file.is_file() and recorded:
            raise UserError(
                f"the plugin {short(place)} is not there: {home} has no such file"
                f"{f', nor is there {place}' if Path(place).is_absolute() else ''}; copy it to {home}, or start the "
                "program in the directory that contains it"
            )
        if not file.is_file():
            raise UserError(
                f"the plugin {place} is not there: {home} has no such file; start the program in the "
                "directory that contains it, or give its path"
            )
        file = file.resolve()
        name = ".".join(file.relative_to(source_digest.root_of(file)).with_suffix("").parts).removesuffix(".__init__")
        if not all(part.isidentifier() for part in name.split(".")):
            raise UserError(f"the plugin {place} cannot be imported under this name; rename it, e.g. to my_plugin.py")
        look_in(source_digest.root_of(file))
    else:
        name = place
        look_in(home)
        file = _file_of(name, home, recorded=recorded)
    if recorded and (inside := directory_of_runs(file)):
        raise UserError(
            f"the plugin {short(place)} is in {inside}, a directory of runs, from which no code is executed; if you "
            "trust it, copy it to the directory in which you start the program"
        )
    if (other := _file_of(name, home)) != file:
        raise UserError(f"the plugin {place} has the name of another module, {other}; rename it")
    return name, file


def _file_of(name: str, home: Path, *, recorded: bool = False) -> Path:
    try:
        spec = find_spec(name) if all(part.isidentifier() for part in name.split(".")) else None
    except (ImportError, ValueError, AttributeError):
        spec = None
    except Exception as error:  # of a package above it
        raise UserError(f"the plugin {name} cannot be imported: {described(error)}") from error
    if spec is None or spec.origin is None:
        advice = "give a file, e.g. plugins=[my_plugin.py]"
        if recorded:
            advice = "install it, or start the program in the directory that contains it"
        raise UserError(f"the plugin {name} cannot be found: there is no such module, installed or in {home}; {advice}")
    if not spec.origin.endswith(".py"):
        raise UserError(f"the plugin {name} has the name of another module, {spec.origin}; rename it")
    return Path(spec.origin).resolve()


def look_in(directory: Path) -> None:
    """Add this directory to the end of the module search path."""
    if str(directory) not in sys.path:
        sys.path.append(str(directory))  # last, so that no other module is replaced


def directory_of_runs(file: Path) -> Path | None:
    """The directory of a run or of a sweep that contains a file; None if there is none."""

    def is_one(directory: Path) -> bool:
        return any(all((directory / name).exists() for name in names) for names in _OF_RUNS)

    return next(filter(is_one, file.parents), None)


def _is_imported(name: str, files: Collection[Path]) -> bool:
    """Whether the module is imported, and its source has not changed since the program started."""
    return name in sys.modules and all(file.stat().st_mtime < _STARTED for file in files)


def _import(name: str, called: str, files: Collection[Path]) -> None:
    writes = sys.dont_write_bytecode
    # of a file that changes twice within a second, Python would take the first version's bytecode
    sys.dont_write_bytecode = True
    try:
        importlib.import_module(name)
    except (Exception, SystemExit) as error:
        _forget(name, files)
        if isinstance(error, UserError):
            raise UserError(f"the plugin {called}: {error}") from error
        raise UserError(f"the plugin {called} cannot be imported: {described(error)}{_line(error)}") from error
    finally:
        sys.dont_write_bytecode = writes


def _line(error: BaseException) -> str:
    """Where a plugin raised."""
    trace, place = error.__traceback__, ""
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if not file.startswith("<") and Path(file).name not in (Path(__file__).name, "__init__.py"):
            place = f" (line {trace.tb_lineno} of {Path(file).name})"
        trace = trace.tb_next
    return "" if isinstance(error, SyntaxError) else place


def _forget(name: str, files: Collection[Path]) -> None:
    """Remove what a plugin has registered, and its modules, unless they are of an installed package."""
    _loaded.pop(name, None)
    own = {file for file in files if not source_digest.INSTALLED & set(file.parts)}
    for registry in REGISTRIES:
        for entry in registry.of_files(own):
            registry.remove(entry)
    names = tuple(file.name for file in own)
    for module, there in list(sys.modules.items()):
        if module == "__main__" or not (file := getattr(there, "__file__", None)):
            continue
        # to resolve the paths of all modules takes tenths of a second, and to make them `Path`s as much
        if (file.endswith(names) or os.path.islink(file)) and Path(file).resolve() in own:  # noqa: PTH114
            del sys.modules[module]
