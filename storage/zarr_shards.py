"""Pairs as a Zarr v3 group of three sharded arrays.

zarr itself makes the descriptions; objects are made in memory and the store moves them whole, rather than handing zarr
a filesystem: so a shard is put atomically and hashed whole, and both formats share one way to any disk.
"""

import functools
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from storage.content import COLUMNS, Columns, Rows, column_dtype, column_shape
from storage.manifest import PairsHeader, ShardPlan
from storage.sharding import ZSTD_LEVEL, decode_object, decode_rows, encode_object

_CHUNK_ROWS = 1024
_CHUNK_BYTES = 256 * 1024


def metadata(header: PairsHeader) -> dict[str, bytes]:
    """The zarr.json files, by name; equal headers give equal bytes.

    The group's file repeats those of its arrays as consolidated metadata: readers then list nothing, and do not
    stumble over the store's own files.
    """
    arrays = _array_metadata(header.num_rows, header.length, header.dtype, header.shard_size)
    return {"zarr.json": group_document(header.model_dump(mode="json"), arrays)} | arrays


def group_document(header: dict[str, Any], arrays: Mapping[str, bytes]) -> bytes:
    """A group's zarr.json, with those of its arrays as consolidated metadata.

    Args:
        header: of the rows, as JSON has it.
        arrays: name of an array's zarr.json -> its bytes.
    """
    group = {
        "zarr_format": 3,
        "node_type": "group",
        "attributes": {"pairflow": header},
        "consolidated_metadata": {
            "kind": "inline",
            "must_understand": False,
            "metadata": {name.removesuffix("/zarr.json"): json.loads(data) for name, data in arrays.items()},
        },
    }
    return json.dumps(group, indent=2, sort_keys=True).encode()


def objects(header: PairsHeader, index: int) -> dict[str, tuple[str, ...]]:
    """The names of a shard's objects, and the column that each holds."""
    return {f"{name}/c.{index}" + ("" if name == "sample_id" else ".0"): (name,) for name in COLUMNS}


def encode(header: PairsHeader, shard: ShardPlan, columns: Columns) -> dict[str, bytes]:
    """A shard's objects, by name."""
    encoded: dict[str, bytes] = {}
    for name, (column,) in objects(header, shard.index).items():
        encoded[name] = encode_object(columns[column], *_rows(header, column))
    return encoded


def decode(header: PairsHeader, shard: ShardPlan, name: str, data: bytes, into: Columns | None = None) -> Columns:
    """The column that an object holds; raises ValueError, or what numcodecs raises, if it is damaged."""
    (column,) = objects(header, shard.index)[name]
    out = into.get(column) if into else None
    if out is None:
        out = np.empty(column_shape(header, column, shard.num_rows), column_dtype(header, column))
    decode_object(data, out, *_rows(header, column))
    return {column: out}


def take(header: PairsHeader, shard: ShardPlan, name: str, data: bytes, rows: Rows) -> Columns:
    """Like `decode`, some rows of the shard alone; only the chunks that hold them are decompressed."""
    (column,) = objects(header, shard.index)[name]
    out = np.empty(column_shape(header, column, len(rows)), column_dtype(header, column))
    decode_rows(data, rows, out, *_rows(header, column))
    return {column: out}


def _rows(header: PairsHeader, column: str) -> tuple[int, int]:
    """Rows of a shard, and of its inner chunks."""
    shard_rows = min(header.shard_size, header.num_rows)
    row_bytes = column_dtype(header, column).itemsize * (1 if column == "sample_id" else header.length)
    return shard_rows, chunk_rows(shard_rows, row_bytes)


@functools.lru_cache(maxsize=8)
def _array_metadata(num_rows: int, length: int, dtype: str, shard_size: int) -> dict[str, bytes]:
    """zarr.json of the three arrays, which depends on nothing else of the header."""
    import zarr
    from zarr.codecs import ZstdCodec
    from zarr.storage import MemoryStore

    contents: dict[str, Any] = {}
    memory = MemoryStore(contents)
    shard_rows = min(shard_size, num_rows)
    for name in COLUMNS:
        tokens = name != "sample_id"
        row_bytes = np.dtype(dtype).itemsize * length if tokens else 8
        tail = (length,) if tokens else ()
        zarr.create_array(
            memory,
            name=name,
            shape=(num_rows, *tail),
            dtype=dtype if tokens else "int64",
            shards=(shard_rows, *tail),
            chunks=(chunk_rows(shard_rows, row_bytes), *tail),
            filters=None,
            compressors=ZstdCodec(level=ZSTD_LEVEL),
            fill_value=0,
            # Objects side by side, target/c.7.0, rather than a folder for each shard.
            chunk_key_encoding={"name": "default", "configuration": {"separator": "."}},
            dimension_names=("row", "position")[: 1 + len(tail)],
        )
    return {f"{name}/zarr.json": contents[f"{name}/zarr.json"].to_bytes() for name in COLUMNS}


def chunk_rows(shard_rows: int, row_bytes: int) -> int:
    """Rows of an inner chunk: the divisor of the shard's rows nearest, as a ratio, to 1,024 rows or 256 KiB."""
    wanted = max(1, min(_CHUNK_ROWS, _CHUNK_BYTES // row_bytes))
    low = (d for d in range(1, int(shard_rows**0.5) + 1) if shard_rows % d == 0)
    divisors = [divisor for d in low for divisor in (d, shard_rows // d)]
    return min(divisors, key=lambda divisor: max(divisor / wanted, wanted / divisor))
