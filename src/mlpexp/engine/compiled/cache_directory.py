"""The directory of compiled functions in the user's cache folder; those that no installed version uses are removed.

Each version of the sources has a directory of its own. It lists the installations that have used it, and each process
keeps it locked, so that the first process of a newer version can remove what is not needed any more.
"""

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from mlpexp.runtime import portable, safe_files
from mlpexp.runtime.errors import UserError

PREFIX = "numba-"
LOCK = ".lock"
INSTALLATIONS = "installations.txt"
SUPERSEDED_S = 86_400  # how long the directory of a former version of this installation is kept after its last use
UNKNOWN_S = 30 * 86_400  # the same, for a directory that does not list its installations
_opened: dict[Path, int] = {}


def opened(sources: Path, digest: str) -> Path | None:
    """The directory for these sources, which no other process removes while this one lives; None if it is not writable.

    Args:
        sources: the directory of the compiled functions.
        digest: of their content.
    """
    directory = _user_cache() / "mlpexp" / f"{PREFIX}{digest[:16]}"
    if directory in _opened and directory.is_dir():
        return directory
    installation = f"{sources}\t{sys.prefix}"
    try:
        is_new = not directory.exists()
        _opened[directory] = _locked(directory)
        with tempfile.TemporaryFile(dir=directory):
            pass
        os.utime(directory / LOCK)
        listed = _installations(directory) or []
        if installation not in listed:
            new = directory / f".{INSTALLATIONS}.{os.getpid()}"
            new.write_text("\n".join([*listed, installation, ""]), encoding="utf-8")
            new.replace(directory / INSTALLATIONS)
    except (OSError, UserError):
        return None
    if is_new:
        for former in _unneeded(directory, installation):
            with suppress(OSError, UserError):
                _remove(former)
    return directory


def _locked(directory: Path) -> int:
    """Open and lock the directory, which another process may remove until then."""
    while True:
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / LOCK
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        if portable.lock(handle, shared=True) is not False:
            with suppress(FileNotFoundError):
                if os.path.samestat(path.stat(), os.fstat(handle)):
                    return handle
        os.close(handle)


def _unneeded(current: Path, installation: str) -> Iterator[Path]:
    """The directories of other versions that no installation uses."""
    for path in current.parent.glob(f"*{PREFIX}*"):
        if path == current or path.is_symlink() or not path.is_dir():
            continue
        with suppress(OSError, UserError):
            listed = _installations(path)
            files = [file.stat() for file in path.rglob("*") if file.is_file() and file.name != INSTALLATIONS]
            uses = [max(status.st_mtime, status.st_atime) for status in files]
            age = time.time() - max(uses, default=path.stat().st_mtime)
            if listed is None:
                is_unneeded = age > UNKNOWN_S or path.name.startswith(".")  # the rest of a removal
            else:
                is_superseded = installation in listed and age > SUPERSEDED_S
                others = [other for other in listed if other != installation]
                is_unneeded = (is_superseded or installation not in listed) and not any(map(_exists, others))
            if is_unneeded:
                yield path


def _exists(installation: str) -> bool:
    return all(Path(place).exists() for place in installation.split("\t"))


def _installations(directory: Path) -> list[str] | None:
    """Sources and environments of those that have used it; None where that is not recorded."""
    try:
        return safe_files.read_text(directory / INSTALLATIONS).splitlines()
    except FileNotFoundError:
        return None


def _remove(directory: Path) -> None:
    """Remove it, unless a process uses it."""
    handle = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    try:
        if portable.lock(handle) is True:
            place = directory.with_name(f".{directory.name.lstrip('.')}.{os.getpid()}")
            directory.rename(place)
            shutil.rmtree(place)
    finally:
        os.close(handle)


def _user_cache() -> Path:
    if directory := os.environ.get("XDG_CACHE_HOME"):
        return Path(directory)
    return Path("~/Library/Caches" if sys.platform == "darwin" else "~/.cache").expanduser()
