"""Data of a Python program: kept in a file named by its content, and described by ordinary settings.

So everything that follows is as for a file of the user: the identity of a run has the digest of the content,
workers and later starts read the file, and the same content is the same data.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from mlpexp.data import array_files, data_frames
from mlpexp.data.data_config import DataConfig
from mlpexp.data.data_sets import DATA_SETS
from mlpexp.runtime.errors import UserError, writing
from mlpexp.store import atomic_files

KEPT_IN = Path("outputs", "data")  # below the working directory
TABLES = (".csv", ".tsv", ".txt", ".parquet")
WANTED = "give a DataFrame with target='COLUMN', a pair of arrays (X, y), a file, or a name such as 'iris'"


def settings(data: Any, target: str | Sequence[str] | None) -> dict[str, Any]:
    """The settings below `data` that mean this data; a file is written where there is none yet.

    Args:
        data: a DataFrame, a mapping of columns, a pair (X, y) of arrays, the path of a file, the name of a data set, or
            a mapping of settings.
        target: the column of classes of a table, or with `data.task=regression` the columns of values.

    Raises:
        UserError: it is something else, or cannot be trained on.
    """
    if isinstance(data, Mapping) and not _is_table(data):
        return {"data": data} | ({"data.target": target} if target is not None else {})
    if isinstance(data, str) and (data in DATA_SETS or Path(data).suffix not in (*TABLES, ".npz")):
        return {"data": data} | ({"data.target": target} if target is not None else {})
    if isinstance(data, str | PurePath):
        return _file(str(data), target)
    if isinstance(data, tuple | list) and len(data) == 2:
        if target is not None:
            raise UserError("data=(X, y) has its labels in y; leave target out")
        return {"data": "npz", "data.path": str(_kept(array_files.to_bytes(*data), ".npz"))}
    if not data_frames.is_frame(data):
        raise UserError(f"data is {type(data).__name__}; {WANTED}")
    names = [str(name) for name in data_frames.column_names(data)]
    targets = [] if target is None else list(map(str, target if isinstance(target, list | tuple) else [target]))
    if not targets or not set(targets) <= set(names):
        start = "which column holds the classes? The" if not targets else f"target={target!r} is no column; the"
        raise UserError(f"{start} table has {', '.join(names[:12])}; give target={names[-1] if names else 'y'!r}")
    text, texts = data_frames.to_csv(data)
    values: dict[str, Any] = {"data": "csv", "data.path": str(_kept(text.encode(), ".csv"))}
    values["data.target"] = targets if isinstance(target, list | tuple) else targets[0]
    categorical = [name for name in texts if name not in targets]
    return values | ({"data.categorical": categorical} if categorical else {})


def _is_table(data: Mapping[Any, Any]) -> bool:
    """Whether a mapping holds columns, and not settings."""
    column_names = {str(name).partition(".")[0] for name in data} - set(DataConfig.__pydantic_fields__)  # type: ignore[attr-defined]
    return bool(column_names) and all(
        isinstance(column, list | tuple) or getattr(column, "ndim", 0) == 1 for column in data.values()
    )


def _file(path: str, target: str | Sequence[str] | None) -> dict[str, Any]:
    if Path(path).suffix == ".npz":
        return {"data": "npz", "data.path": path}
    return {"data": "csv", "data.path": path} | ({"data.target": target} if target is not None else {})


@writing()
def _kept(content: bytes, suffix: str) -> Path:
    """The file of this content; it is written once, and never changed."""
    path = KEPT_IN / f"{hashlib.sha256(content).hexdigest()[:16]}{suffix}"
    if not path.is_file() or path.read_bytes() != content:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_files.write(path, content)
    return path
