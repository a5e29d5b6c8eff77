"""The rows of a coupling as three arrays: what is accepted, and the hash of what they say."""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from pairflow.errors import SpecError
from pairflow.spec import canonical_json
from storage.manifest import PairsHeader, ShardPlan

COLUMNS = ("sample_id", "target", "source")

Columns = dict[str, npt.NDArray[Any]]
"""sample_id [n] int64, target and source [n, D] of the header's dtype, C order, native bytes."""

Rows = npt.NDArray[np.int64]
"""Numbers of rows, [n]."""


def column_dtype(header: PairsHeader, column: str) -> np.dtype[Any]:
    """Type of a column, in native byte order."""
    return np.dtype("int64" if column == "sample_id" else header.dtype)


def column_shape(header: PairsHeader, column: str, num_rows: int) -> tuple[int, ...]:
    """Shape of `num_rows` rows of a column."""
    return (num_rows,) if column == "sample_id" else (num_rows, header.length)


def check_columns(
    header: PairsHeader, shard: ShardPlan, source: npt.ArrayLike, target: npt.ArrayLike, sample_id: npt.ArrayLike
) -> Columns:
    """The arrays of one shard, checked.

    Tokens are not cast: an array of another type than the header's is more likely a mistake than a wish.

    Raises:
        SpecError: a wrong shape or type, a token that is not below K, or a negative sample id.
    """
    columns: Columns = {}
    for name, given in (("source", source), ("target", target)):
        tokens = _as_array(name, given, shard)
        _check_shape(name, tokens, column_shape(header, name, shard.num_rows), shard)
        expected = column_dtype(header, name)
        if tokens.dtype.newbyteorder("=") != expected:
            raise SpecError(
                f"{name} of shard {shard.index} must be {expected}, as vocab_size {header.vocab_size} asks for, "
                f"got {tokens.dtype}; cast it with {name}.astype({expected.name!r}) if every token fits"
            )
        if int(tokens.max()) >= header.vocab_size:
            raise SpecError(
                f"{name} of shard {shard.index} holds token {int(tokens.max())}, but vocab_size is "
                f"{header.vocab_size}: tokens are 0..{header.vocab_size - 1}"
            )
        columns[name] = np.ascontiguousarray(tokens, expected)
    ids = _as_array("sample_id", sample_id, shard)
    _check_shape("sample_id", ids, (shard.num_rows,), shard)
    if ids.dtype.kind not in "iu" or not np.can_cast(ids.dtype, np.int64):
        raise SpecError(f"sample_id of shard {shard.index} must be int64, got {ids.dtype}")
    if int(ids.min()) < 0:
        raise SpecError(f"sample_id of shard {shard.index} counts rows from 0, got {int(ids.min())}")
    columns["sample_id"] = np.ascontiguousarray(ids, np.int64)
    return columns


def _as_array(name: str, given: npt.ArrayLike, shard: ShardPlan) -> npt.NDArray[Any]:
    """The numbers of an array, which must be all that it says."""
    if np.ma.is_masked(given):
        raise SpecError(f"{name} of shard {shard.index} has masked values; every position needs one")
    try:
        return np.asarray(given)
    except (TypeError, ValueError, RuntimeError) as error:  # rows of unequal length, or a tensor on a GPU
        raise SpecError(f"{name} of shard {shard.index} cannot be read as an array: {str(error)[:300]}") from None


def _check_shape(name: str, array: npt.NDArray[Any], expected: tuple[int, ...], shard: ShardPlan) -> None:
    if array.shape != expected:
        raise SpecError(
            f"{name} of shard {shard.index} (rows {shard.start} to {shard.stop - 1}) must have shape "
            f"{expected}, got {array.shape}"
        )


class ContentHash:
    """SHA-256 of consecutive rows, fed in any pieces: it depends neither on shards nor on a file format.

    Each column has a stream of its own, of little-endian bytes, so that pieces of any size give the same digests. The
    hash is that of a canonical JSON object with the row range, the length, the dtype and the three digests.
    """

    def __init__(self, header: PairsHeader, start: int = 0) -> None:
        self._about = {"content_version": 1, "start": start, "length": header.length, "dtype": header.dtype}
        self._stop = start
        self._streams = {name: hashlib.sha256() for name in COLUMNS}

    def update(self, columns: Mapping[str, npt.NDArray[Any]]) -> None:
        """Adds the next rows."""
        self._stop += len(columns["sample_id"])
        for name, stream in self._streams.items():
            array = columns[name]
            stream.update(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).data)

    def hexdigest(self) -> str:
        """The hash of all rows so far, 64 hexadecimal digits."""
        digests = {name: stream.hexdigest() for name, stream in self._streams.items()}
        return hashlib.sha256(canonical_json(self._about | {"stop": self._stop} | digests).encode()).hexdigest()


def content_sha256(header: PairsHeader, shard: ShardPlan, columns: Mapping[str, npt.NDArray[Any]]) -> str:
    """The content hash of one shard."""
    content = ContentHash(header, shard.start)
    content.update(columns)
    return content.hexdigest()
