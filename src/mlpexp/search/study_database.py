"""Databases that hold an Optuna study: an SQLite file of the sweep, or any address that SQLAlchemy knows."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, RDBStorage

from mlpexp.runtime import safe_files
from mlpexp.runtime.errors import StorageError, UserError, first_line
from mlpexp.search.study_journal import DamagedStorage
from mlpexp.store import atomic_files


def opened(storage: str, path: Path, new: tuple[str, Sequence[Any]] | None = None) -> BaseStorage:
    """
    Args:
        storage: an address, or `sqlite` for the file `path`.
        new: name and directions of the study of a new SQLite file; None: a file that must be there.

    Raises:
        DamagedStorage: it cannot be opened.
    """
    if storage == "sqlite" and (path.exists() or path.is_symlink()) and not safe_files.is_regular(path, follow=False):
        raise DamagedStorage(f"{path} is not a regular file")
    address = f"sqlite:///{path}" if storage == "sqlite" else storage
    try:
        if new is not None and (file := _new_sqlite_file(address)) is not None:
            _make_sqlite(file, *new)
        return RDBStorage(address)
    except (OSError, UserError):
        raise
    except Exception as error:  # of SQLAlchemy, or of the driver that it lacks
        reason = str(error).partition("\n")[0]
        raise DamagedStorage(f"hydra.sweeper.storage={storage} cannot be opened: {reason}") from error


def _new_sqlite_file(address: str) -> Path | None:
    """The file of an SQLite address that is not there yet, in a directory that is; None for all other addresses."""
    from sqlalchemy import make_url  # as Optuna imports it: with the first database

    url = make_url(address)
    if url.get_backend_name() != "sqlite" or not url.database or url.database.startswith((":", "file:")):
        return None
    file = Path(url.database)
    return file if file.parent.is_dir() and not (file.exists() or file.is_symlink()) else None


def _make_sqlite(path: Path, name: str, directions: Sequence[Any]) -> None:
    """An SQLite file with an empty study, whole or absent.

    Optuna creates tables, indices and study one by one. Without the index that makes names of studies unique, each
    later start would add another study with the same name.
    """
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary) / path.name
        storage = RDBStorage(f"sqlite:///{place}")
        optuna.create_study(storage=storage, study_name=name, directions=directions)
        storage.remove_session()
        storage.engine.dispose()
        atomic_files.write(path, place.read_bytes(), durable=True)


@contextmanager
def errors_named(name: str) -> Iterator[None]:
    """Replace Optuna's error, which has no reason, while the block uses a database.

    Raises:
        StorageError: the database is not available.
        DamagedStorage: it is, with a content that is not Optuna's.
    """
    try:
        yield
    except StorageInternalError as error:
        cause = error.__cause__
        reason = first_line(getattr(cause, "orig", None) or cause or error)
        if type(cause).__name__ != "OperationalError":
            raise DamagedStorage(f"hydra.sweeper.storage={name} holds no study of a search ({reason})") from error
        raise StorageError(
            f"hydra.sweeper.storage={name} cannot be used: {reason}; finished runs are kept, the same command carries "
            "on once that is mended"
        ) from error
