"""Pairs as a Zarr v3 group of three sharded arrays; zarr itself makes and reads every byte.

The codecs run on memory and the store moves whole objects, rather than handing zarr a filesystem: so a shard is put
atomically and hashed whole, and both formats share one way to any disk.
"""

import functools
import json
from typing import TYPE_CHECKING, Any

import numpy as np

from storage.content import COLUMNS, Columns
from storage.manifest import PairsHeader, ShardPlan

if TYPE_CHECKING:
    from zarr.core.array import Array
    from zarr.core.metadata import ArrayV3Metadata
    from zarr.storage import MemoryStore

_CHUNK_ROWS = 1024
_CHUNK_BYTES = 256 * 1024
_ZSTD_LEVEL = 3  # level 1 is no faster here, level 5 takes half as long again for nothing


def metadata(header: PairsHeader) -> dict[str, bytes]:
    """The zarr.json files, by name; equal headers give equal bytes.

    The group's file repeats those of its arrays as consolidated metadata: readers then list nothing, and do not
    stumble over the store's own files.
    """
    arrays = _array_metadata(header.num_rows, header.length, header.dtype, header.shard_size)
    group = {
        "zarr_format": 3,
        "node_type": "group",
        "attributes": {"pairflow": header.model_dump(mode="json")},
        "consolidated_metadata": {
            "kind": "inline",
            "must_understand": False,
            "metadata": {name: json.loads(arrays[f"{name}/zarr.json"]) for name in COLUMNS},
        },
    }
    return {"zarr.json": json.dumps(group, indent=2, sort_keys=True).encode()} | arrays


def objects(header: PairsHeader, index: int) -> dict[str, tuple[str, ...]]:
    """The names of a shard's objects, and the column that each holds."""
    return {f"{name}/c.{index}" + ("" if name == "sample_id" else ".0"): (name,) for name in COLUMNS}


def encode(header: PairsHeader, shard: ShardPlan, columns: Columns) -> dict[str, bytes]:
    """A shard's objects, by name."""
    encoded: dict[str, bytes] = {}
    for name, (column,) in objects(header, shard.index).items():
        contents: dict[str, Any] = {}
        array = _open(header, column, contents)
        array[shard.start : shard.stop] = columns[column]
        encoded[name] = contents[name].to_bytes()
    return encoded


def decode(header: PairsHeader, shard: ShardPlan, name: str, data: bytes) -> Columns:
    """The column that an object holds; raises what zarr raises if it is damaged."""
    from zarr.core.buffer import default_buffer_prototype

    (column,) = objects(header, shard.index)[name]
    contents = {name: default_buffer_prototype().buffer.from_bytes(data)}
    return {column: np.asarray(_open(header, column, contents)[shard.start : shard.stop])}


def _open(header: PairsHeader, column: str, contents: dict[str, Any]) -> "Array[Any]":
    """One array of the coupling, over the objects in `contents`.

    Put together from its parsed description rather than with zarr.open_array, which would parse it for every object.
    """
    import zarr
    from zarr.storage import StorePath

    described = _parsed_metadata(header.num_rows, header.length, header.dtype, header.shard_size)[column]
    # Chunks of zeros are stored like any other: a shard is complete or missing, never absent on purpose.
    path = StorePath(_memory(contents), column)
    return zarr.Array(zarr.AsyncArray(described, path, config={"write_empty_chunks": True}))


@functools.lru_cache(maxsize=8)
def _parsed_metadata(num_rows: int, length: int, dtype: str, shard_size: int) -> dict[str, "ArrayV3Metadata"]:
    """What zarr makes of the zarr.json of the three arrays."""
    from zarr.core.metadata import ArrayV3Metadata

    described = _array_metadata(num_rows, length, dtype, shard_size)
    return {name: ArrayV3Metadata.from_dict(json.loads(described[f"{name}/zarr.json"])) for name in COLUMNS}


@functools.lru_cache(maxsize=8)
def _array_metadata(num_rows: int, length: int, dtype: str, shard_size: int) -> dict[str, bytes]:
    """zarr.json of the three arrays, which depends on nothing else of the header."""
    import zarr
    from zarr.codecs import ZstdCodec

    contents: dict[str, Any] = {}
    memory = _memory(contents)
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
            compressors=ZstdCodec(level=_ZSTD_LEVEL),
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


def _memory(contents: dict[str, Any]) -> "MemoryStore":
    from zarr.storage import MemoryStore

    return MemoryStore(contents)
