"""One column of a Parquet or Arrow file, a batch of rows at a time."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pairflow.errors import DatasetError

if TYPE_CHECKING:
    import pyarrow as pa

PARQUET = (".parquet",)
ARROW = (".arrow", ".feather")
COLUMNAR = PARQUET + ARROW
_BATCH_ROWS = 16_384


def read_strings(path: Path, column: str | None, default: str) -> Iterator[str]:
    """The strings of a column, row by row; a row that has none gives "".

    Args:
        path: of the file, by whose ending its format is known.
        column: its name, exactly; None: the one called `default`, in capitals or not, else the only one of strings.
        default: its name where none is given.

    Raises:
        DatasetError: there is no such column, or several, or it holds no strings; or the file cannot be read.
    """
    with _opened(path) as (schema, batches):
        name = _column(schema, path, column, default)
        for values in batches(name):
            yield from ("" if value is None else value for value in values)


def check_column(path: Path, column: str | None, default: str) -> None:
    """Raises what `read_strings` would raise of the file's schema."""
    with _opened(path) as (schema, _):
        _column(schema, path, column, default)


@contextmanager
def _opened(path: Path) -> Iterator[tuple["pa.Schema", Any]]:
    """The schema of a file, and what gives the values of a column, batch by batch."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():
        what = "is a folder, expected a file" if path.is_dir() else "does not exist"
        raise DatasetError(f"{path} {what}")
    try:
        if path.suffix.lower() in PARQUET:
            # Without Arrow's thread pools: see pairflow.datasets.parquet_files.
            with pq.ParquetFile(path, pre_buffer=False) as file:

                def groups(name: str) -> Iterator[list[str | None]]:
                    for batch in file.iter_batches(_BATCH_ROWS, columns=[name], use_threads=False):
                        yield batch.column(0).to_pylist()

                yield file.schema_arrow, groups
            return
        with pa.memory_map(str(path)) as source:
            reader = arrow_reader(source)
            yield reader.schema, lambda name: _arrow_batches(reader, name)
    except (pa.ArrowException, OSError) as error:
        raise DatasetError(f"{path} cannot be read as {path.suffix}: {error}; write the file again") from error


def arrow_reader(source: Any) -> Any:
    """Of a file, which is what Feather (version 2) is, or of a stream."""
    import pyarrow as pa

    try:
        return pa.ipc.open_file(source)
    except pa.ArrowInvalid:
        source.seek(0)
        return pa.ipc.open_stream(source)


def _arrow_batches(reader: Any, name: str) -> Iterator[list[str | None]]:
    batches = (
        (reader.get_batch(number) for number in range(reader.num_record_batches))
        if hasattr(reader, "num_record_batches")
        else reader
    )
    for batch in batches:
        values = batch.column(name)
        for start in range(0, len(values), _BATCH_ROWS):
            yield values.slice(start, _BATCH_ROWS).to_pylist()


def _column(schema: "pa.Schema", path: Path, column: str | None, default: str) -> str:
    names, strings = list(schema.names), [field.name for field in schema if _is_string(field.type)]
    remedy = "name the right one as the dataset's column (--column)"
    if column is not None:
        found = [name for name in names if name == column]
    else:
        found = [name for name in names if name.lower() == default] or strings
    if len(found) > 1:
        raise DatasetError(f"{path} has {len(found)} columns that it may be, {found[:20]}; {remedy}")
    if not found:
        wanted = "one of strings" if column is None else f"one named '{column}'"
        raise DatasetError(f"{path} has columns {names[:20]}, expected {wanted}; {remedy}")
    if found[0] not in strings:
        kind = schema.field(found[0]).type
        raise DatasetError(f"{path}: column '{found[0]}' holds {kind}, expected strings; {remedy}")
    return found[0]


def _is_string(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))
