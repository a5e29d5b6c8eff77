"""Where training finds its rows: in arrays, or in a store that is read as they are needed.

The library does not know the store. It takes what has these few members, as `storage.Pairs` has, and rows that lie in
memory are given the same face by `Held`.
"""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from pairflow.batches import DataDigest, check_range
from pairflow.errors import SpecError

_HELD_SHARD = 65_536  # rows: what is gathered at a time of rows in memory

Array = npt.NDArray[Any]


class Column(Protocol):
    """Tokens [M, D] that need not be in memory."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...


@runtime_checkable
class RowSource(Protocol):
    """Targets, and the sources of pairs, that are read shard by shard, from several threads.

    Attributes:
        target: x_1, integers [M, D].
        source: x_0 of each row, of the same shape; None where rows have none.
        shard_size: rows that are read together: row i is in shard i // shard_size.
    """

    @property
    def target(self) -> Column: ...

    @property
    def source(self) -> Column | None: ...

    @property
    def shard_size(self) -> int: ...

    def shard(self, index: int, columns: tuple[str, ...]) -> Mapping[str, Array]:
        """All rows of a shard, of columns 'target' and 'source'."""

    def take(self, index: int, rows: npt.NDArray[np.int64], columns: tuple[str, ...]) -> Mapping[str, Array]:
        """Some rows of a shard, by their numbers within it, in any order."""


class Held:
    """Rows that lie in memory."""

    def __init__(self, target: Array, source: Array | None) -> None:
        self.target, self.source = target, source
        self.shard_size = _HELD_SHARD

    def shard(self, index: int, columns: tuple[str, ...]) -> dict[str, Array]:
        """All rows of a shard, not copied."""
        rows = slice(index * self.shard_size, (index + 1) * self.shard_size)
        return {name: getattr(self, name)[rows] for name in columns}

    def take(self, index: int, rows: npt.NDArray[np.int64], columns: tuple[str, ...]) -> dict[str, Array]:
        """Some rows of a shard."""
        return {name: array.take(rows, axis=0) for name, array in self.shard(index, columns).items()}


def columns_of(rows: RowSource) -> tuple[str, ...]:
    """The names of what there is of each row."""
    return ("target",) if rows.source is None else ("target", "source")


def row_bytes(rows: RowSource) -> int:
    """Bytes of a row's tokens, of all columns, as they are stored."""
    columns: list[Column] = [getattr(rows, name) for name in columns_of(rows)]
    return sum(column.shape[1] * column.dtype.itemsize for column in columns)


def num_bytes(rows: RowSource) -> int:
    """Bytes of all tokens, as they are stored."""
    return rows.target.shape[0] * row_bytes(rows)


def check_shape(rows: RowSource) -> None:
    """Columns must be integers [M, D], alike.

    Raises:
        SpecError: what does not fit.
    """
    for name in columns_of(rows):
        column: Column = getattr(rows, name)
        if len(column.shape) != 2 or 0 in column.shape or column.dtype.kind not in "iu":
            raise SpecError(
                f"{name}: got {column.dtype} of shape {tuple(column.shape)}, expected integers [M, D], at least one "
                "row and one token a row"
            )
        if tuple(column.shape) != tuple(rows.target.shape):
            raise SpecError(
                f"{name}: got shape {tuple(column.shape)}, expected {tuple(rows.target.shape)} as of target"
            )


def survey(rows: RowSource, vocab_size: int) -> str:
    """Reads every shard once a column, one or two at a time in memory: checks each token, and returns `data_digest`.

    Raises:
        SpecError: a token that is not below the vocabulary's size.
    """
    digest = DataDigest()
    for name in ("target", "source"):
        column: Column | None = getattr(rows, name)
        digest.begin(None if column is None else tuple(column.shape))
        if column is not None:
            for block in shards(rows, name):
                check_range(name, block, vocab_size)
                digest.update(block)
    return digest.hexdigest()


def shards(rows: RowSource, name: str) -> Iterator[Array]:
    """One column, shard after shard; the next one is read by a thread meanwhile."""
    num_shards = -(-rows.target.shape[0] // rows.shard_size)
    with ThreadPoolExecutor(1, thread_name_prefix="survey") as ahead:
        coming = ahead.submit(rows.shard, 0, (name,))
        for index in range(1, num_shards + 1):
            shard = coming.result()
            if index < num_shards:
                coming = ahead.submit(rows.shard, index, (name,))
            yield shard[name]


def read_all(rows: RowSource) -> tuple[Array, Array | None]:
    """(target, source or None) in memory."""
    if isinstance(rows, Held):
        return rows.target, rows.source
    names = columns_of(rows)
    whole = {name: np.empty(rows.target.shape, getattr(rows, name).dtype) for name in names}

    def fill(index: int) -> None:
        start = index * rows.shard_size
        for name, block in rows.shard(index, names).items():
            whole[name][start : start + len(block)] = block

    with ThreadPoolExecutor(thread_name_prefix="reading") as pool:
        for _ in pool.map(fill, range(-(-rows.target.shape[0] // rows.shard_size))):
            pass
    return whole["target"], whole.get("source")
