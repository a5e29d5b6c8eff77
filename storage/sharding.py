"""One object of Zarr's sharding codec, made and read in this thread: what zarr makes and reads, several times faster.

zarr hands every inner chunk to a thread of its own by way of an event loop, which takes longer than to decompress it.
The tests compare each byte with zarr's. An object is the compressed chunks one after the other, then an index, for each
chunk its offset and its size as little-endian 64-bit integers, then the CRC-32C of the index; both numbers are
2^64 - 1 for a chunk that lies beyond the last row.
"""

import math
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from numcodecs import Zstd

ZSTD_LEVEL = 3  # level 1 is no faster here, level 5 takes half as long again for nothing

_ABSENT = 2**64 - 1
_CRC_BYTES = 4
_FRAME_HEADER_BYTES = 18  # at most, magic number included
_INDEX = np.dtype("<u8")


def encode_object(rows: npt.NDArray[Any], shard_rows: int, chunk_rows: int) -> bytes:
    """The object of one shard.

    Args:
        rows: [n, ...], n up to `shard_rows`; the rest of the last chunk is filled with zeros.
        shard_rows: rows of a full shard.
        chunk_rows: rows of an inner chunk; divides `shard_rows`.
    """
    codec, little_endian = _zstd(), rows.dtype.newbyteorder("<")
    index = np.full((shard_rows // chunk_rows, 2), _ABSENT, _INDEX)
    parts: list[bytes] = []
    offset = 0
    for number, start in enumerate(range(0, len(rows), chunk_rows)):
        chunk = np.ascontiguousarray(rows[start : start + chunk_rows], little_endian)
        if len(chunk) < chunk_rows:
            chunk = np.concatenate([chunk, np.zeros((chunk_rows - len(chunk), *chunk.shape[1:]), little_endian)])
        part = codec.encode(chunk)
        index[number] = offset, len(part)
        parts.append(part)
        offset += len(part)
    stated = index.tobytes()
    return b"".join([*parts, stated, _crc(stated)])


def decode_object(data: bytes, out: npt.NDArray[Any], shard_rows: int, chunk_rows: int) -> None:
    """Fills in the rows of one shard.

    Args:
        data: the object, which may hold anything.
        out: [n, ...] C-contiguous, n up to `shard_rows`.
        shard_rows: rows of a full shard.
        chunk_rows: rows of an inner chunk.

    Raises:
        ValueError: it is not such an object, or of other shapes.
        RuntimeError: a chunk cannot be decompressed.
    """
    index = _index(data, shard_rows // chunk_rows)
    chunk_bytes = chunk_rows * out[:1].nbytes if len(out) else 0
    in_place = out.dtype.newbyteorder("<") == out.dtype and out.flags.c_contiguous
    for number, start in enumerate(range(0, len(out), chunk_rows)):
        frame, block = _frame(data, index, number), out[start : start + chunk_rows]
        if in_place and block.nbytes == chunk_bytes == _content_bytes(frame):
            _zstd().decode(frame, out=block)
        else:
            block[...] = _chunk(frame, number, chunk_rows, out)[: len(block)]


def decode_rows(
    data: bytes, rows: npt.NDArray[np.int64], out: npt.NDArray[Any], shard_rows: int, chunk_rows: int
) -> None:
    """Fills in some rows of one shard; chunks that hold none of them are not decompressed.

    Args:
        data: the object, which may hold anything.
        rows: [n] which rows of the shard, in any order.
        out: [n, ...] as `decode_object`.
        shard_rows: rows of a full shard.
        chunk_rows: rows of an inner chunk.

    Raises:
        ValueError: it is not such an object, or of other shapes.
        RuntimeError: a chunk cannot be decompressed.
    """
    index = _index(data, shard_rows // chunk_rows)
    chunks = rows // chunk_rows
    order = np.argsort(chunks, kind="stable")
    numbers, firsts = np.unique(chunks[order], return_index=True)
    for number, places in zip(numbers.tolist(), np.split(order, firsts[1:]), strict=False):
        chunk = _chunk(_frame(data, index, number), number, chunk_rows, out)
        out[places] = chunk.take(rows[places] - number * chunk_rows, axis=0)


def _frame(data: bytes, index: npt.NDArray[np.uint64], number: int) -> memoryview:
    """The bytes of one chunk, compressed."""
    offset, size = int(index[number, 0]), int(index[number, 1])
    if offset + size > len(data):
        raise ValueError(f"chunk {number} lies beyond the end of the object, or is not there")
    return memoryview(data)[offset : offset + size]


def _chunk(frame: memoryview, number: int, chunk_rows: int, like: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The rows of one chunk, [chunk_rows, ...] of the shape and type that the rows of `like` have."""
    shape = (chunk_rows, *like.shape[1:])
    chunk = _zstd().decode(frame)
    if len(chunk) != (expected := math.prod(shape) * like.dtype.itemsize):
        raise ValueError(f"wrong shape: chunk {number} holds {len(chunk):,} bytes, expected {expected:,}")
    return np.frombuffer(chunk, like.dtype.newbyteorder("<")).reshape(shape)


def _content_bytes(frame: memoryview) -> int | None:
    """What a zstd frame says it holds (RFC 8878, section 3.1.1.1), or None if it does not say.

    numcodecs decompresses into a larger array without a word, so this is asked first.
    """
    if len(frame) < _FRAME_HEADER_BYTES:
        return None
    descriptor = frame[4]
    single_segment, dictionary = descriptor >> 5 & 1, (0, 1, 2, 4)[descriptor & 3]
    size = (single_segment, 2, 4, 8)[descriptor >> 6]
    start = 6 - single_segment + dictionary
    stated = int.from_bytes(frame[start : start + size], "little") + (256 if size == 2 else 0)
    return stated if size else None


def _index(data: bytes, num_chunks: int) -> npt.NDArray[np.uint64]:
    """Offset and size of every chunk, [num_chunks, 2]."""
    size = 16 * num_chunks
    if len(data) < size + _CRC_BYTES:
        raise ValueError(f"too short for the index of {num_chunks} chunks: {len(data):,} bytes")
    stated = data[-size - _CRC_BYTES : -_CRC_BYTES]
    if _crc(stated) != data[-_CRC_BYTES:]:
        raise ValueError("the checksum of the index does not match")
    return np.frombuffer(stated, _INDEX).reshape(num_chunks, 2)


def _crc(data: bytes) -> bytes:
    from google_crc32c import value

    return int(value(data)).to_bytes(_CRC_BYTES, "little")


@lru_cache(maxsize=1)
def _zstd() -> "Zstd":
    from numcodecs import Zstd

    return Zstd(level=ZSTD_LEVEL)
