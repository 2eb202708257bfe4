"""Imports of user-defined modules, for plugins and networks: where their source is, importing and removing them.

`subject` begins the message of an error, e.g. `the plugin my_plugin.py`.
"""

import importlib
import os
import sys
import traceback
from collections.abc import Collection, Sequence
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from mlpexp.runtime.errors import UserError, described
from mlpexp.runtime.source_digest import INSTALLED

_RUN_FILES = (("sweep.json",), ("metrics.csv", "checkpoints"))  # what the directory of a sweep, or of a run, holds
_LIBRARIES = (Path(__file__).parents[1], Path(os.__file__).parent)  # mlpexp and Python's own


def add_to_search_path(directory: Path) -> None:
    """Add a directory to the end of the module search path, so that it replaces no other module."""
    if str(directory) not in sys.path:
        sys.path.append(str(directory))


def source_path(name: str, subject: str) -> Path | None:
    """The file of a module, which is not imported; packages above it are. None where there is no such module.

    Raises:
        UserError: a package above it cannot be imported.
    """
    importlib.invalidate_caches()
    try:
        spec = find_spec(name)
    except (ImportError, ValueError, AttributeError):
        return None
    except Exception as error:  # whatever a package above it raises
        raise UserError(f"{subject} cannot be imported: {described(error)}") from error
    return None if spec is None or spec.origin is None else Path(spec.origin)


def import_module(name: str, subject: str) -> ModuleType:
    """The module, imported unless it is already.

    Raises:
        UserError: it cannot be imported; the message has the line of the user's code.
    """
    writes_bytecode = sys.dont_write_bytecode
    # of a file that changes twice within a second, Python would use the bytecode of the first version
    sys.dont_write_bytecode = True
    try:
        return importlib.import_module(name)
    except UserError as error:
        raise UserError(f"{subject}: {error}") from error
    except (Exception, SystemExit) as error:
        line = "" if isinstance(error, SyntaxError) else user_line(error)
        raise UserError(f"{subject} cannot be imported: {described(error)}{line}") from error
    finally:
        sys.dont_write_bytecode = writes_bytecode


def remove_modules(files: Collection[Path]) -> None:
    """Remove the modules of these files from `sys.modules`; the next import executes them again."""
    names = tuple(file.name for file in files)
    for name, module in list(sys.modules.items()):
        if name == "__main__" or not (file := getattr(module, "__file__", None)):
            continue
        # to resolve the paths of all modules takes tenths of a second, and to make them `Path`s as much
        if (file.endswith(names) or os.path.islink(file)) and Path(file).resolve() in files:  # noqa: PTH114
            del sys.modules[name]


def refuse_run_directory(file: Path, subject: str) -> None:
    """
    Raises:
        UserError: the file is in the directory of a run or of a sweep, which another person may have written.
    """

    def has_runs(directory: Path) -> bool:
        return any(all((directory / name).exists() for name in names) for names in _RUN_FILES)

    if directory := next(filter(has_runs, file.parents), None):
        raise UserError(
            f"{subject} is in {directory}, a directory of runs, from which no code is executed; if you trust it, copy "
            "it to the directory in which you start the program"
        )


def file_stamps(files: Sequence[Path]) -> list[tuple[int, int] | None]:
    """Time of modification and size of each file; `[None]` where one of them is gone."""
    try:
        return [((status := file.stat()).st_mtime_ns, status.st_size) for file in files]
    except OSError:
        return [None]


def user_line(error: BaseException) -> str:
    """The innermost line of the user's code that raised the error, e.g. ` (line 3 of my_plugin.py)`; else empty."""
    line = ""
    for frame, number in traceback.walk_tb(error.__traceback__):
        file = Path(frame.f_code.co_filename)
        is_library = INSTALLED & set(file.parts) or any(map(file.is_relative_to, _LIBRARIES))
        if file.suffix == ".py" and not is_library:
            line = f" (line {number} of {file.name})"
    return line
