"""Token rows from a Parquet or Arrow file: of a column of lists, or of a table of integers, without its index."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from pairflow.errors import DatasetError


def read_parquet(path: Path, column: str, *, required: bool) -> np.ndarray:
    """A list column with lists of one length, or a table of integer columns, one a position.

    What pandas says to be its index is no position. Dictionary-encoded columns (categories) are read as what they
    stand for.

    Args:
        path: of the file.
        column: of the lists.
        required: there must be one of this name.

    Raises:
        DatasetError: a value is missing, the rows differ in length, or something is no integer.
    """
    import pyarrow.parquet as pq  # loaded only for your own Parquet files

    # Without Arrow's thread pools: with pyarrow 25 they now and then abort a short process as it exits.
    with pq.ParquetFile(path, pre_buffer=False) as file:
        table = file.read(use_threads=False)
    return _rows(table, path, column, required=required)


def read_arrow(path: Path, column: str, *, required: bool) -> np.ndarray:
    """The same of an Arrow file or stream, which is also what Feather (version 2) is.

    Args:
        path: of the file.
        column: of the lists.
        required: there must be one of this name.

    Raises:
        DatasetError: as `read_parquet`.
    """
    import pyarrow as pa

    from pairflow.datasets.column_files import arrow_reader

    with pa.memory_map(str(path)) as source:
        return _rows(arrow_reader(source).read_all(), path, column, required=required)


def _rows(table: Any, path: Path, column: str, *, required: bool) -> np.ndarray:
    """Rows [M, D] of a pyarrow.Table."""
    import pyarrow as pa

    names = table.column_names
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise DatasetError(f"{path} has several columns of the name {repeated[0]!r}; every column needs its own")
    if column in names and (required or _is_list(table.schema.field(column).type)):
        return _read_lists(_plain(table.column(column)), path, column)
    if required:
        raise DatasetError(f"{path} has columns {names[:20]}, expected one named '{column}'")
    positions = [name for name in names if name not in _index_columns(table.schema.metadata)]
    columns = {name: _plain(table.column(name)) for name in positions}
    if bad := [name for name, values in columns.items() if not pa.types.is_integer(values.type)]:
        raise DatasetError(
            f"{path}: columns {bad[:5]} are no integers; expected a list column '{column}' or integer columns only"
        )
    for name, values in columns.items():
        if values.null_count:
            raise DatasetError(f"{path}: column '{name}' has missing values; every position needs a token")
    if not columns:
        return np.empty((table.num_rows, 0), dtype=np.uint8)
    return np.stack([_small(values.to_numpy()) for values in columns.values()], axis=1)


def _small(values: np.ndarray) -> np.ndarray:
    """uint64 as int64 where it fits: beside signed columns numpy would make floats of both."""
    return values.astype(np.int64) if values.dtype == np.uint64 and values.max(initial=0) < 2**63 else values


def _index_columns(metadata: dict[bytes, bytes] | None) -> set[str]:
    """Columns that pandas wrote for its index; a plain range has none."""
    try:
        said = json.loads((metadata or {}).get(b"pandas", b"{}")).get("index_columns", [])
        return {name for name in said if isinstance(name, str)}
    except (ValueError, AttributeError, TypeError, RecursionError):
        return set()


def _plain(values: Any) -> Any:
    """A column (pyarrow.ChunkedArray) without what only says how it is stored."""
    import pyarrow as pa

    if isinstance(values.type, pa.BaseExtensionType):
        storage = values.type.storage_type
        values = pa.chunked_array([chunk.storage for chunk in values.chunks], type=storage)
    if pa.types.is_dictionary(values.type):
        values = pa.chunked_array([chunk.dictionary_decode() for chunk in values.chunks], type=values.type.value_type)
    return values


def _is_list(kind: Any) -> bool:
    import pyarrow as pa

    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _read_lists(values: Any, path: Path, column: str) -> np.ndarray:
    """Rows [M, D] of a list column (pyarrow.ChunkedArray).

    Raises:
        DatasetError: a row or a token is missing, the rows differ in length, or it is no list of numbers.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if not _is_list(values.type):
        raise DatasetError(f"{path}: '{column}' holds {values.type}, expected lists of integers, one a row")
    if values.null_count:
        raise DatasetError(f"{path}: {values.null_count} rows of '{column}' are missing; drop them or fill them")
    lengths = pc.list_value_length(values).to_numpy()
    if lengths.size and (lengths != lengths[0]).any():
        row = int(np.argmax(lengths != lengths[0]))
        raise DatasetError(
            f"{path}: row {row} has {lengths[row]} tokens, row 0 has {lengths[0]}; pad all rows to one length D"
        )
    tokens = _plain(pc.list_flatten(values))
    if tokens.null_count:
        raise DatasetError(f"{path}: {tokens.null_count} tokens are missing; every position needs one")
    if not (pa.types.is_integer(tokens.type) or pa.types.is_floating(tokens.type)):
        raise DatasetError(f"{path}: '{column}' holds lists of {tokens.type}, expected integers")
    return tokens.to_numpy().reshape(len(values), int(lengths[0]) if lengths.size else 0)
