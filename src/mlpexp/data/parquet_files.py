"""Tables in Parquet files: the types of Arrow and the metadata of pandas are followed.

An index that pandas stored is not a feature; a dictionary or categorical is not a number.
"""

import base64
import io
import json
from typing import Any, NamedTuple

from mlpexp.data.cell_values import Cell, canonical
from mlpexp.data.file_table import Column, FileTable, Source
from mlpexp.runtime.errors import UserError


def read(source: Source) -> FileTable:
    """The columns of a Parquet file.

    Raises:
        UserError: it is damaged, has no samples, or pyarrow is not installed.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise UserError(
            f"{source.label} is a Parquet file, for which pyarrow is needed: pip install 'mlpexp[parquet]'"
        ) from None
    try:
        file = parquet.ParquetFile(io.BytesIO(source.content))
        table = file.read()
        stored = _stored_types(file)
        pandas = _pandas_metadata(file)
        columns = [
            _parquet_column(name, array, stored.get(name, array.type), pandas)
            for name, array in zip(table.column_names, table.columns, strict=True)
        ]
    except (pyarrow.ArrowException, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{source.label} is a damaged Parquet file: {str(error).splitlines()[0]}") from error
    if not table.num_rows:
        raise UserError(f"{source.label} has columns and no samples")
    return FileTable(source, columns, list(range(1, table.num_rows + 1)))


def _stored_types(file: Any) -> dict[str, Any]:
    """The Arrow types with which a file was written: Parquet itself has no dictionary of whole numbers."""
    from pyarrow import ipc

    encoded = (file.metadata.metadata or {}).get(b"ARROW:schema")
    if encoded is None:
        return {}
    return {field.name: field.type for field in ipc.read_schema(io.BytesIO(base64.b64decode(encoded)))}


class _Pandas(NamedTuple):
    indices: frozenset[str] = frozenset()
    categorical: frozenset[str] = frozenset()


def _pandas_metadata(file: Any) -> _Pandas:
    encoded = (file.metadata.metadata or {}).get(b"pandas")
    if encoded is None:
        return _Pandas()
    plain = json.loads(encoded)
    columns = [column for column in plain["columns"] if column.get("pandas_type") == "categorical"]
    return _Pandas(
        frozenset(name for name in plain["index_columns"] if isinstance(name, str)),
        frozenset(str(column.get("field_name", column.get("name"))) for column in columns),
    )


def _parquet_column(name: str, array: Any, stored: Any, pandas: _Pandas) -> Column:
    from pyarrow import types

    of_values = array.type.value_type if types.is_dictionary(array.type) else array.type
    cells = array.to_pylist
    is_category = types.is_dictionary(stored) or types.is_dictionary(array.type) or name in pandas.categorical
    column = Column(name, [], type=str(of_values), is_index=name in pandas.indices)
    if types.is_null(of_values):
        return column._replace(kind="number", cells=["" for _ in range(len(array))])
    if types.is_integer(of_values) or types.is_floating(of_values) or types.is_decimal(of_values):
        numbers: list[Cell] = [
            "" if cell is None else cell if isinstance(cell, int | float) else float(cell) for cell in cells()
        ]
        if is_category:
            return column._replace(kind="category", cells=[canonical(cell) for cell in numbers])
        return column._replace(kind="number", cells=numbers)
    if types.is_boolean(of_values) or types.is_string(of_values) or types.is_large_string(of_values):
        return column._replace(kind="category", cells=["" if cell is None else str(cell) for cell in cells()])
    return column._replace(kind="refused")
