"""Commands to print: they work when pasted into the shell that the program was started from.

The environment need not be active there (`make train`), and the working directory need not be the repository.
"""

import shlex
import shutil
import sys
from pathlib import Path

_PACKAGE = Path(__file__).parents[1]


def script(name: str, *words: str) -> str:
    """E.g. `python scripts/train.py resume=outputs/a`; words are quoted where the shell needs it.

    Args:
        name: a file of `scripts/`, e.g. `train.py`.
    """
    beside = Path(sys.argv[0]).with_name(name)  # the path of the running script as it was typed
    if is_installed():
        return shlex.join([_program("mlpexp"), Path(name).stem, *words])
    path = beside if beside.is_file() else Path("scripts", name)
    return shlex.join([_program("python"), str(path), *words])


def plain(name: str) -> str:
    """The name of a script in general texts: `python scripts/train.py`, or `mlpexp train` without a checkout."""
    return f"mlpexp {Path(name).stem}" if is_installed() else f"python scripts/{name}"


def program() -> str:
    """The name of the running script in messages: `train.py`, or `mlpexp train` without a checkout."""
    path = Path(sys.argv[0])
    return f"mlpexp {path.stem}" if is_installed() and path.parent == scripts() else path.name


def scripts() -> Path:
    """The directory of the scripts: of an installed package inside it, of a checkout beside `src`."""
    installed = _PACKAGE / "scripts"
    return installed if installed.is_dir() else _PACKAGE.parents[1] / "scripts"


def is_installed() -> bool:
    """Whether the package has been installed with its scripts, and is no checkout."""
    return (_PACKAGE / "scripts").is_dir()


def tool(name: str, *words: str) -> str:
    """E.g. `tensorboard --logdir outputs/a`.

    Args:
        name: a program that a dependency installs.
    """
    return shlex.join([_program(name), *words])


def short_path(path: Path) -> Path:
    """The path relative to the working directory, where it is below that."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _program(name: str) -> str:
    """`name` where the shell finds this environment's, otherwise its path."""
    folder = Path(sys.executable).parent
    path = shutil.which(name)
    if path is not None and Path(path).parent == folder:
        return name
    return str(short_path(Path(sys.executable) if name == "python" else folder / name))
