"""The rows of a prepared dataset as files: a Zarr v3 group of sharded arrays, or Parquet files; as pairs have them.

Columns: tokens [M, D]; held_out [M] bool, true of the test part's rows; label [M] uint8, where the data has labels.
"""

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from storage.dataset_manifest import DatasetHeader
from storage.manifest import ShardPlan
from storage.sharding import ZSTD_LEVEL, decode_object, encode_object
from storage.zarr_shards import chunk_rows, group_document

if TYPE_CHECKING:
    import pyarrow as pa

Columns = dict[str, npt.NDArray[Any]]
TOKENS, HELD_OUT, LABEL = "tokens", "held_out", "label"
_HEADER_KEY = b"pairflow.header"


def columns_of(header: DatasetHeader) -> dict[str, tuple[np.dtype[Any], tuple[int, ...]]]:
    """Each column's type, and its shape but for the rows."""
    columns: dict[str, tuple[np.dtype[Any], tuple[int, ...]]] = {
        TOKENS: (np.dtype(header.dtype), (header.length,)),
        HELD_OUT: (np.dtype(bool), ()),
    }
    return columns | ({LABEL: (np.dtype(np.uint8), ())} if header.has_labels else {})


def objects(header: DatasetHeader, index: int) -> dict[str, tuple[str, ...]]:
    """The names of the files that have the rows of one shard, and the columns that each holds."""
    if header.format == "parquet":
        return {f"part-{header.part_name(index)}.parquet": tuple(columns_of(header))}
    return {f"{name}/c.{index}{'.0' * len(tail)}": (name,) for name, (_, tail) in columns_of(header).items()}


def encode(header: DatasetHeader, shard: ShardPlan, columns: Columns) -> dict[str, bytes]:
    """The files of one shard: equal rows give equal bytes."""
    if header.format == "parquet":
        return {name: _parquet(header, columns) for name in objects(header, shard.index)}
    return {
        name: encode_object(columns[column], *_chunks(header, column))
        for name, (column,) in objects(header, shard.index).items()
    }


def decode(header: DatasetHeader, name: str, data: bytes, into: Columns, index: int) -> None:
    """Fills in the columns that a file holds.

    Args:
        header: of the dataset.
        name: of the file.
        data: its bytes.
        into: rows of the shard, by column.
        index: of the shard.

    Raises:
        ValueError: it holds something else; or what numcodecs and pyarrow raise of damaged bytes.
    """
    if header.format == "parquet":
        _read_parquet(header, data, into)
        return
    (column,) = objects(header, index)[name]
    decode_object(data, into[column], *_chunks(header, column))


def metadata_names(header: DatasetHeader) -> tuple[str, ...]:
    """The names of `metadata`."""
    if header.format == "parquet":
        return ()
    return ("zarr.json", *(f"{name}/zarr.json" for name in columns_of(header)))


def metadata(header: DatasetHeader) -> dict[str, bytes]:
    """Files that belong to no shard, by name: Zarr's descriptions, the group's with those of its arrays."""
    if header.format == "parquet":
        return {}
    import zarr
    from zarr.codecs import ZstdCodec
    from zarr.storage import MemoryStore

    contents: dict[str, Any] = {}
    memory = MemoryStore(contents)
    columns = columns_of(header)
    for name, (dtype, tail) in columns.items():
        shard_rows, chunk = _chunks(header, name)
        zarr.create_array(
            memory,
            name=name,
            shape=(header.num_rows, *tail),
            dtype=dtype,
            shards=(shard_rows, *tail),
            chunks=(chunk, *tail),
            filters=None,
            compressors=ZstdCodec(level=ZSTD_LEVEL),
            fill_value=0,
            chunk_key_encoding={"name": "default", "configuration": {"separator": "."}},
            dimension_names=("row", "position")[: 1 + len(tail)],
        )
    arrays = {f"{name}/zarr.json": bytes(contents[f"{name}/zarr.json"].to_bytes()) for name in columns}
    return {"zarr.json": group_document(header.model_dump(mode="json"), arrays)} | arrays


def _chunks(header: DatasetHeader, column: str) -> tuple[int, int]:
    """Rows of a full shard, and of its inner chunks."""
    shard_rows = min(header.shard_size, header.num_rows)
    dtype, tail = columns_of(header)[column]
    return shard_rows, chunk_rows(shard_rows, dtype.itemsize * int(np.prod(tail, dtype=np.int64)))


def _schema(header: DatasetHeader) -> "pa.Schema":
    import pyarrow as pa

    element = pa.field("element", pa.from_numpy_dtype(np.dtype(header.dtype)), nullable=False)
    fields = [
        pa.field(TOKENS, pa.list_(element, header.length), nullable=False),
        pa.field(HELD_OUT, pa.bool_(), nullable=False),
        *([pa.field(LABEL, pa.uint8(), nullable=False)] if header.has_labels else []),
    ]
    return pa.schema(fields, metadata={_HEADER_KEY: json.dumps(header.model_dump(mode="json"), sort_keys=True)})


def _parquet(header: DatasetHeader, columns: Columns) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = _schema(header)
    arrays = [
        pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), type=schema.field(name).type)
        if name == TOKENS
        else pa.array(values)
        for name, values in ((field.name, columns[field.name]) for field in schema)
    ]
    sink = pa.BufferOutputStream()
    pq.write_table(
        pa.Table.from_arrays(arrays, schema=schema),
        sink,
        compression="zstd",
        compression_level=ZSTD_LEVEL,
        use_dictionary=False,
        column_encoding={f"{TOKENS}.list.element": "BYTE_STREAM_SPLIT"},
        write_statistics=False,
    )
    return bytes(sink.getvalue().to_pybytes())


def _read_parquet(header: DatasetHeader, data: bytes, into: Columns) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetFile(pa.BufferReader(data), pre_buffer=False) as file:  # see storage.parquet_shards
        table = file.read(use_threads=False)
    if not table.schema.equals(_schema(header)):
        raise ValueError(f"wrong shape: its columns are {table.schema.names} of types {table.schema.types}")
    for name, out in into.items():
        values = table.column(name).combine_chunks()
        found = (values.flatten() if name == TOKENS else values).to_numpy(zero_copy_only=False)
        if found.size != out.size:
            raise ValueError(f"wrong shape: {name} has {found.size:,} values, expected {out.size:,}")
        np.copyto(out, found.reshape(out.shape), casting="unsafe")  # the file holds these types in 32 bits
