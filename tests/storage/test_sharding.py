"""Objects of Zarr's sharding codec: byte for byte those of zarr, read as zarr reads them, and nothing else taken."""

import google_crc32c
import numpy as np
import pytest
import zarr
from numcodecs import Zstd
from zarr.core.buffer import default_buffer_prototype
from zarr.storage import MemoryStore

from storage import zarr_shards
from storage.sharding import _content_bytes, decode_object, encode_object

from . import storage_formula as formula

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


@pytest.mark.parametrize("num_bytes", [100, 255, 256, 257, 65_791, 65_792, 1_000_000])
def test_a_frame_says_what_it_holds(num_bytes):
    """The four widths of a frame's size, as zstd writes them."""
    noise = np.random.default_rng(0).integers(256, size=num_bytes, dtype=np.uint8)
    assert _content_bytes(memoryview(Zstd(level=3).encode(noise))) == num_bytes
    assert _content_bytes(memoryview(b"short")) is None


def test_a_frame_of_fewer_rows_is_an_error_and_leaves_no_row_unset():
    """numcodecs would fill in the first rows and say nothing."""
    rows = np.random.default_rng(0).integers(2**16, size=(128, 4), dtype=np.uint16)
    sound = encode_object(rows, 128, 128)
    fewer = Zstd(level=3).encode(rows[:100])
    index = np.array([[0, len(fewer)]], "<u8").tobytes()
    data = fewer + index + encode_crc(index)
    out = np.empty_like(rows)
    with pytest.raises(ValueError, match=r"wrong shape: chunk 0 holds 800 bytes, expected 1,024"):
        decode_object(data, out, 128, 128)
    decode_object(sound, out, 128, 128)
    np.testing.assert_array_equal(out, rows)


def encode_crc(index: bytes) -> bytes:
    return int(google_crc32c.value(index)).to_bytes(4, "little")


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
