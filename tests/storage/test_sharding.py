"""Objects of Zarr's sharding codec: byte for byte those of zarr, read as zarr reads them, and nothing else taken."""

import numpy as np
import pytest
import storage_formula as formula
import zarr
from zarr.core.buffer import default_buffer_prototype
from zarr.storage import MemoryStore

from storage import zarr_shards
from storage.sharding import decode_object, encode_object

CASES = [
    (num_rows, shard_size, length, vocab_size)
    for num_rows, shard_size in ((1, 1), (40, 7), (40, 40), (40, 1000), (5000, 2048), (4097, 4096), (3000, 1000))
    for length, vocab_size in ((1, 2), (32, 43), (784, 300), (5, 70_000))
]


def by_zarr(header, columns) -> dict[str, bytes]:
    """The objects that zarr itself writes over the coupling's own descriptions."""
    prototype = default_buffer_prototype()
    contents = {name: prototype.buffer.from_bytes(data) for name, data in zarr_shards.metadata(header).items()}
    for name, column in columns.items():
        array = zarr.open_array(MemoryStore(contents), path=name, mode="r+")
        array.with_config({"write_empty_chunks": True})[:] = column
    return {name: data.to_bytes() for name, data in contents.items() if not name.endswith("zarr.json")}


@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize(("num_rows", "shard_size", "length", "vocab_size"), CASES)
def test_every_byte_is_zarrs(num_rows, shard_size, length, vocab_size, zeros):
    header = formula.header("zarr", shard_size, num_rows=num_rows, length=length, vocab_size=vocab_size)
    columns = dict(zip(("source", "target", "sample_id"), formula.rows(header), strict=True))
    if zeros:
        columns = {name: np.zeros_like(column) for name, column in columns.items()}
    expected = by_zarr(header, columns)
    for shard in header.plan():
        rows = slice(shard.start, shard.stop)
        made = zarr_shards.encode(header, shard, {name: column[rows] for name, column in columns.items()})
        for name, data in made.items():
            assert data == expected.pop(name)
            ((column, decoded),) = zarr_shards.decode(header, shard, name, data).items()
            np.testing.assert_array_equal(decoded, columns[column][rows])
    assert expected == {}


def test_damaged_objects_are_errors_or_other_rows_and_never_a_crash():
    """The store checks the hash of an object before it decodes it; whoever does not, gets no more than ValueError."""
    rows = np.arange(400, dtype=np.uint16).reshape(100, 4)
    sound = encode_object(rows, 128, 16)
    rng = np.random.default_rng(0)
    out = np.empty_like(rows)
    raised = 0
    for _ in range(2000):
        data = bytearray(sound)
        data[rng.integers(len(data))] ^= 1 << rng.integers(8)
        try:
            decode_object(bytes(data), out, 128, 16)
        except (ValueError, RuntimeError):
            raised += 1
    assert raised > 500
    for cut in (b"", sound[:3], sound[:131], sound[:-1], sound[1:]):
        with pytest.raises((ValueError, RuntimeError)):
            decode_object(cut, out, 128, 16)


@pytest.mark.parametrize(("shard_rows", "chunk_rows"), [(128, 32), (64, 16), (256, 16)])
def test_objects_of_other_shapes_are_errors(shard_rows, chunk_rows):
    rows = np.arange(400, dtype=np.uint16).reshape(100, 4)
    sound = encode_object(rows, 128, 16)
    with pytest.raises(ValueError, match=r"wrong shape|checksum|too short|beyond"):
        decode_object(sound, np.empty_like(rows), shard_rows, chunk_rows)
    with pytest.raises(ValueError, match="wrong shape"):
        decode_object(sound, np.empty((100, 5), np.uint16), 128, 16)
    with pytest.raises(ValueError, match="is not there"):
        decode_object(encode_object(rows[:50], 128, 16), np.empty_like(rows), 128, 16)
