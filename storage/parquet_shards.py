"""Pairs as a folder of Parquet files, one a shard: sample_id, target and source, the tokens as fixed-size lists."""

import json
from typing import TYPE_CHECKING

import numpy as np

from pairflow.spec import canonical_json
from storage.content import COLUMNS, Columns, Rows, column_dtype
from storage.manifest import PairsHeader, ShardPlan

if TYPE_CHECKING:
    import pyarrow as pa

_ZSTD_LEVEL = 3
_ROW_GROUP_BYTES = 16 * 1024 * 1024  # of tokens: what a reader of one column holds at a time
_HEADER_KEY = b"pairflow.header"
# Parquet knows no integers below 32 bits: split by byte, the three bytes of zeros of a token cost nothing, which
# is smaller and twice as fast as a dictionary. Recent readers know it (checked: pyarrow 25, pandas 3.1, DuckDB 2.0).
_ENCODINGS = {
    "sample_id": "DELTA_BINARY_PACKED",
    "target.list.element": "BYTE_STREAM_SPLIT",
    "source.list.element": "BYTE_STREAM_SPLIT",
}


def metadata(header: PairsHeader) -> dict[str, bytes]:
    """No file belongs to all shards: each carries the header in its key-value metadata."""
    return {}


def objects(header: PairsHeader, index: int) -> dict[str, tuple[str, ...]]:
    """The name of a shard's one object, which holds all columns."""
    return {f"part-{header.part_name(index)}.parquet": COLUMNS}


def encode(header: PairsHeader, shard: ShardPlan, columns: Columns) -> dict[str, bytes]:
    """A shard's object, by name."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = _schema(header)
    arrays = [
        pa.array(columns["sample_id"]),
        *(
            pa.FixedSizeListArray.from_arrays(pa.array(columns[name].reshape(-1)), type=schema.field(name).type)
            for name in ("target", "source")
        ),
    ]
    sink = pa.BufferOutputStream()
    pq.write_table(
        pa.Table.from_arrays(arrays, schema=schema),
        sink,
        compression="zstd",
        compression_level=_ZSTD_LEVEL,
        use_dictionary=False,
        column_encoding=_ENCODINGS,
        write_statistics=["sample_id"],
        row_group_size=max(1024, _ROW_GROUP_BYTES // (2 * np.dtype(header.dtype).itemsize * header.length)),
    )
    return {name: sink.getvalue().to_pybytes() for name in objects(header, shard.index)}


def decode(header: PairsHeader, shard: ShardPlan, name: str, data: bytes, into: Columns | None = None) -> Columns:
    """All columns of an object; raises ValueError, or what pyarrow raises, if it is damaged or of another coupling."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    # Without Arrow's thread pools: with read_table and pyarrow 25, 6 of 220 short processes were aborted when they
    # ended ("terminate called without an active exception"), of 220 like this none. Shards are parallel enough.
    with pq.ParquetFile(pa.BufferReader(data), pre_buffer=False) as file:
        table = file.read(use_threads=False)
    stated = json.loads((table.schema.metadata or {}).get(_HEADER_KEY, b"{}")).get("fingerprint")
    if stated != header.fingerprint:
        raise ValueError(f"wrong fingerprint: it belongs to coupling {stated}, expected {header.fingerprint}")
    if not table.schema.equals(_schema(header)):
        raise ValueError(f"wrong shape: its columns are {table.schema.names} of types {table.schema.types}")
    columns: Columns = {}
    for column in COLUMNS:
        chunks = table.column(column).combine_chunks()
        values = chunks if column == "sample_id" else chunks.flatten()
        shape = (-1,) if column == "sample_id" else (-1, header.length)
        found = values.to_numpy(zero_copy_only=False).reshape(shape)
        if (out := into.get(column) if into else None) is None:
            columns[column] = found.astype(column_dtype(header, column), copy=False)
        elif out.shape != found.shape:
            raise ValueError(f"wrong shape: {column} is {found.shape}, expected {out.shape}")
        else:
            np.copyto(out, found, casting="unsafe")  # the file holds these types in 32 bits
            columns[column] = out
    return columns


def take(header: PairsHeader, shard: ShardPlan, name: str, data: bytes, rows: Rows) -> Columns:
    """Like `decode`, some rows of the shard alone: a part of Parquet is decoded whole."""
    return {column: array.take(rows, axis=0) for column, array in decode(header, shard, name, data).items()}


def _schema(header: PairsHeader) -> "pa.Schema":
    import pyarrow as pa

    element = pa.field("element", pa.from_numpy_dtype(np.dtype(header.dtype)), nullable=False)
    tokens = pa.list_(element, header.length)
    return pa.schema(
        [
            pa.field("sample_id", pa.int64(), nullable=False),
            pa.field("target", tokens, nullable=False),
            pa.field("source", tokens, nullable=False),
        ],
        metadata={_HEADER_KEY: canonical_json(header.model_dump(mode="json"))},
    )
