"""The registry of file formats, and the one way in which a shard's objects are read back and checked."""

import hashlib
from typing import Protocol

from pairflow.errors import ShardCorruptError
from storage import parquet_shards, zarr_shards
from storage.content import COLUMNS, Columns, Rows, column_dtype, column_shape, content_sha256
from storage.filesystem import Folder
from storage.manifest import PairsFormat, PairsHeader, ShardPlan, ShardRecord, StoredObject

REMEDY = "run `pairflow verify` for every damaged shard of these pairs"


class Layout(Protocol):
    """What a file format provides; each is a module whose functions are pure."""

    def metadata(self, header: PairsHeader) -> dict[str, bytes]:
        """Files that belong to no shard, by name."""

    def objects(self, header: PairsHeader, index: int) -> dict[str, tuple[str, ...]]:
        """The names of a shard's objects, and the columns that each holds."""

    def encode(self, header: PairsHeader, shard: ShardPlan, columns: Columns) -> dict[str, bytes]:
        """A shard's objects, by name; equal columns give equal bytes."""

    def decode(
        self, header: PairsHeader, shard: ShardPlan, name: str, data: bytes, into: Columns | None = None
    ) -> Columns:
        """The columns that an object holds; those that are in `into` are written there."""

    def take(self, header: PairsHeader, shard: ShardPlan, name: str, data: bytes, rows: Rows) -> Columns:
        """Some rows of the columns that an object holds, by their numbers within the shard."""


LAYOUTS: dict[PairsFormat, Layout] = {"zarr": zarr_shards, "parquet": parquet_shards}


def layout_of(header: PairsHeader) -> Layout:
    """The layout of a coupling's format."""
    return LAYOUTS[header.format]


def describe(name: str, data: bytes) -> StoredObject:
    """An object's entry in a record or manifest."""
    return StoredObject(name=name, num_bytes=len(data), sha256=hashlib.sha256(data).hexdigest())


def fault_of(described: StoredObject, data: bytes | None) -> str | None:
    """What is wrong with an object's bytes, or None."""
    if data is None:
        return "missing"
    if len(data) != described.num_bytes:
        kind = "short" if len(data) < described.num_bytes else "long"
        return f"{kind}: {len(data):,} bytes, expected {described.num_bytes:,}"
    if hashlib.sha256(data).hexdigest() != described.sha256:
        return "hash mismatch: its bytes are not those that were written"
    return None


def decode_checked(
    header: PairsHeader,
    record: ShardRecord,
    name: str,
    data: bytes,
    into: Columns | None = None,
    rows: Rows | None = None,
) -> Columns:
    """The columns of an object whose bytes may be anything; those that are in `into` are written there.

    With `rows`, those rows of the shard alone.

    Raises:
        ValueError: it cannot be decoded, or holds other shapes, types or another coupling's data; says which.
    """
    layout, shard = layout_of(header), ShardPlan(record.index, record.start, record.stop)
    try:
        if rows is None:
            columns = layout.decode(header, shard, name, data, into)
        else:
            columns = layout.take(header, shard, name, data, rows)
    except ValueError:
        raise
    except Exception as error:  # damaged bytes make zarr, numcodecs and pyarrow raise all kinds
        raise ValueError(f"cannot be decoded: {type(error).__name__}: {error}") from error
    for column in layout.objects(header, shard.index)[name]:
        array = columns[column]
        num_rows = shard.num_rows if rows is None else len(rows)
        expected = column_shape(header, column, num_rows), column_dtype(header, column)
        if (array.shape, array.dtype) != expected:
            raise ValueError(f"wrong shape: {column} is {array.shape} {array.dtype}, expected {expected}")
    return columns


def read_object(
    folder: Folder,
    header: PairsHeader,
    record: ShardRecord,
    described: StoredObject,
    into: Columns | None = None,
    rows: Rows | None = None,
) -> Columns:
    """The columns of one object of a shard, its bytes checked against the record; see `decode_checked`.

    Raises:
        ShardCorruptError: they are not those that were written; names the path and the shard.
    """
    data = folder.read(described.name)
    fault = fault_of(described, data)
    if fault is None and data is not None:
        try:
            return decode_checked(header, record, described.name, data, into, rows)
        except ValueError as error:
            fault = str(error)
    raise ShardCorruptError(f"shard {record.index} is damaged: {folder.path(described.name)}: {fault}; {REMEDY}")


def read_shard(folder: Folder, header: PairsHeader, record: ShardRecord) -> Columns:
    """All columns of a shard, checked down to its content hash.

    Raises:
        ShardCorruptError: some of it is not what the record says.
    """
    columns: Columns = {}
    for described in record.objects:
        columns |= read_object(folder, header, record, described)
    shard = ShardPlan(record.index, record.start, record.stop)
    if set(columns) != set(COLUMNS) or content_sha256(header, shard, columns) != record.content_sha256:
        paths = ", ".join(folder.path(described.name) for described in record.objects)
        raise ShardCorruptError(f"shard {record.index} is damaged: {paths}: content hash mismatch; {REMEDY}")
    return columns
