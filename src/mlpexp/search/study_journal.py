"""The journal file of an Optuna study, written once a generation; Optuna's own programs read it, also meanwhile."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import BaseJournalBackend

from mlpexp.runtime import portable, safe_files
from mlpexp.runtime.errors import UserError
from mlpexp.store import atomic_files, directory_lock

LIMIT = 2**30  # bytes of a journal
_OP_CODE = b'{"op_code":'  # how each line of a journal begins
# codes of lines that another program may add while the search runs: attributes of a study and of a trial, such as the
# notes of optuna-dashboard
_ATTRIBUTES = frozenset({2, 3, 8, 9})


class DamagedStorage(UserError):
    """A storage that exists and cannot be read as what it should be."""


class Journal(BaseJournalBackend):
    """Optuna's journal file, written once a generation.

    Optuna's own backend locks the file and waits for the disk at each of its lines, which would take as long as the
    training. Here the process has locked the sweep's directory, or the file itself, for the whole search.

    Raises:
        DamagedStorage: the file is no journal.
        UserError: it is no regular file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            content = safe_files.read_bytes(path, LIMIT, follow=False)
        except FileNotFoundError:
            content = b""
        self._size = content.rfind(b"\n") + 1  # a crash may have cut the last line short
        self._cut = len(content) - self._size
        if self._cut and not self._size and not content.startswith(_OP_CODE):
            raise DamagedStorage(f"{path} is not an Optuna journal")
        try:
            self._lines: list[dict[str, Any]] = [json.loads(line) for line in content[: self._size].splitlines()]
        except (ValueError, RecursionError) as error:
            raise DamagedStorage(f"{path} is not an Optuna journal ({error})") from error
        self._written = len(self._lines)

    def read_logs(self, log_number_from: int) -> list[dict[str, Any]]:
        return self._lines[log_number_from:]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        self._lines += logs

    def flush(self) -> None:
        """Write what is new.

        Raises:
            UserError: another program writes to the file.
        """
        new = self._lines[self._written :]
        if not new:
            return
        size_on_disk = self._path.stat().st_size if self._path.exists() else 0
        if size_on_disk != self._size + self._cut:
            self._take_over()
        if self._cut:
            atomic_files.detach(self._path)
            os.truncate(self._path, self._size)
            self._cut = 0
        content = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in new).encode()
        atomic_files.append(self._path, content, durable=True)
        self._size += len(content)
        self._written = len(self._lines)

    def _take_over(self) -> None:
        """Read attributes that another program has appended, such as a note of optuna-dashboard.

        Raises:
            UserError: it has done something else.
        """
        content = safe_files.read_bytes(self._path, LIMIT, follow=False) if self._path.exists() else b""
        added = content[self._size :]
        try:
            lines = [json.loads(line) for line in added.splitlines()]
        except (ValueError, RecursionError):
            lines = []
        are_attributes = all(
            isinstance(line, dict) and line.get("op_code") in _ATTRIBUTES and "worker_id" in line for line in lines
        )
        if self._cut or not lines or not are_attributes or not added.endswith(b"\n"):
            raise UserError(f"{self._path} was changed by another program meanwhile; give each search a separate file")
        self._size += len(added)
        self._lines += lines  # each sets a value of its own, so that their order does not matter


def open_journal(path: Path) -> tuple[BaseStorage, Callable[[], None]]:
    journal = Journal(path)
    if not all(isinstance(line, dict) and "op_code" in line for line in journal.read_logs(0)):
        raise DamagedStorage(f"{path} is not an Optuna journal")
    try:
        return JournalStorage(journal), journal.flush
    except UserError:
        raise
    except Exception as error:  # Optuna raises many kinds on lines that it did not write
        raise DamagedStorage(f"{path} is a damaged Optuna journal ({type(error).__name__}: {error})") from error


def lock_journal(path: Path) -> int:
    """Lock a journal outside of the sweep's directory; returns the descriptor that `directory_lock.release` takes.

    Raises:
        UserError: another process has locked it, or it cannot be a journal.
    """
    if (path.exists() or path.is_symlink()) and not safe_files.is_regular(path, follow=False):
        raise UserError(f"hydra.sweeper.storage={path} is not a regular file; give the name of a file")
    if not path.parent.is_dir():
        raise UserError(
            f"hydra.sweeper.storage={path}: there is no directory {path.parent}; make it, or choose another"
        )
    atomic_files.detach(path)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    directory_lock.close_in_forks(handle)
    if portable.lock(handle) is False:
        directory_lock.release(handle)
        raise UserError(f"hydra.sweeper.storage={path} is in use by another search; give each search a separate file")
    return handle
