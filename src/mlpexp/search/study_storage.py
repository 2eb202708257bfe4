"""Where a search is remembered: Optuna's journal file, or whatever Optuna can write to."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import BaseJournalBackend

from mlpexp.runtime.errors import UserError

JOURNAL, DATABASE = "optuna.log", "optuna.db"


def open_storage(storage: str | None, directory: Path) -> tuple[BaseStorage, Callable[[], None]]:
    """Optuna's storage, and what makes it last: to be called when a generation is asked for, and when it is told.

    Args:
        storage: None for a journal in `directory`, `sqlite` for a database there, an address, or a journal's file.

    Raises:
        UserError: it cannot be read.
    """
    if storage is not None and ("://" in storage or storage == "sqlite"):
        address = f"sqlite:///{directory / DATABASE}" if storage == "sqlite" else storage
        try:
            return RDBStorage(address), lambda: None
        except Exception as error:  # SQLAlchemy's, or of whatever driver it lacks
            reason = str(error).partition("\n")[0]
            raise UserError(f"hydra.sweeper.storage={storage} cannot be opened: {reason}") from error
    journal = Journal(directory / JOURNAL if storage is None else Path(storage))
    return JournalStorage(journal), journal.flush


class Journal(BaseJournalBackend):
    """Optuna's journal file, written once a generation: a lock and a flush to the disk for each of its lines
    would take as long as the training.

    The sweep's directory is locked by this process, so that nobody else writes meanwhile.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        content = path.read_bytes() if path.exists() else b""
        whole = content[: content.rfind(b"\n") + 1]  # a kill may have torn the last line
        try:
            self._lines: list[dict[str, Any]] = [json.loads(line) for line in whole.splitlines()]
        except ValueError as error:
            raise UserError(
                f"{path} is damaged ({error}); move it away: the search starts anew, and its runs are found again"
            ) from error
        self._size, self._written = len(whole), len(self._lines)

    def read_logs(self, log_number_from: int) -> list[dict[str, Any]]:
        return self._lines[log_number_from:]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        self._lines += logs

    def flush(self) -> None:
        """Bring what is new to the disk."""
        text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in self._lines[self._written :])
        if not text:
            return
        with self._path.open("r+b" if self._path.exists() else "wb") as file:
            file.seek(self._size)
            file.write(text.encode())
            file.truncate()
            file.flush()
            os.fsync(file.fileno())
            self._size = file.tell()
        self._written = len(self._lines)
