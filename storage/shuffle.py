"""The order in which pairs are visited: a seeded shuffle that is a pure function of its key, in memory or streamed.

An epoch visits the coupling window by window. A window holds the rows of some shards, drawn at random, and is shuffled
as a whole; so a reader that streams needs one window in memory, and one that holds everything gives the same order.
A coupling of no more rows than a window is one window, and its order does not depend on how it is cut into shards.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from storage.content import Rows
from storage.manifest import plan_shards

_SHARDS, _ROWS = 0, 1  # what a stream of random numbers is for


@dataclass(frozen=True)
class Window:
    """Rows that are shuffled together: positions `start` to `stop` (exclusive) of an epoch."""

    index: int
    start: int
    stop: int
    shards: tuple[int, ...]


@dataclass(frozen=True)
class Shuffle:
    """The order of every epoch; equal shuffles give equal orders on every machine and for every release of numpy.

    Attributes:
        num_rows: N, rows of the coupling.
        shard_size: rows a shard; of no influence where all rows fit into one window.
        window_rows: rows that are shuffled together, at most (one shard at least).
        seed: of all draws.
    """

    num_rows: int
    shard_size: int
    window_rows: int
    seed: int

    def windows(self, epoch: int) -> tuple[Window, ...]:
        """The windows of an epoch, in the order in which they are visited; they differ by one shard at most."""
        return _windows(self, epoch)

    def rows(self, epoch: int, window: Window) -> Rows:
        """Row numbers of a window in the order in which they are visited."""
        plan = (range(k * self.shard_size, min((k + 1) * self.shard_size, self.num_rows)) for k in window.shards)
        rows = np.concatenate([np.arange(shard.start, shard.stop, dtype=np.int64) for shard in plan])
        return rows[_permutation(len(rows), self.seed, epoch, window.index, _ROWS)]

    @property
    def is_one_window(self) -> bool:
        """Whether every epoch is one shuffle of all rows."""
        return self.num_rows <= self.window_rows


@dataclass(frozen=True)
class BatchPlan:
    """How the order of an epoch is cut into batches, and these into parts for ranks.

    Attributes:
        shuffle: the order.
        used: positions of an epoch that are handed out: N, or less where a short last batch is left out.
        batch_size: B, rows of a batch over all ranks.
        rank: whose parts.
        world_size: number of ranks.
    """

    shuffle: Shuffle
    used: int
    batch_size: int
    rank: int
    world_size: int

    @property
    def num_steps(self) -> int:
        """Batches of an epoch."""
        return -(-self.used // self.batch_size)

    def share(self, step: int) -> tuple[int, int]:
        """Positions `start` to `stop` (exclusive) of the epoch's order that are this rank's part of a batch."""
        first = step * self.batch_size
        size = min(self.batch_size, self.used - first)
        return first + size * self.rank // self.world_size, first + size * (self.rank + 1) // self.world_size

    def visits(self, epoch: int, step: int) -> Iterator[Rows]:
        """Row numbers that are this rank's, window after window, from a step to the epoch's end."""
        begin = step * self.batch_size
        for window in self.shuffle.windows(epoch):
            start, stop = max(begin, window.start), min(self.used, window.stop)
            if start < stop:
                rows = self.shuffle.rows(epoch, window)[start - window.start : stop - window.start]
                yield rows if self.world_size == 1 else rows[self._are_mine(start, stop)]

    def _are_mine(self, start: int, stop: int) -> npt.NDArray[np.bool_]:
        """Which positions are in this rank's part of their batch: `share`, for many at once."""
        step, place = np.divmod(np.arange(start, stop, dtype=np.int64), self.batch_size)
        size = np.minimum(self.batch_size, self.used - step * self.batch_size)
        return (size * self.rank // self.world_size <= place) & (place < size * (self.rank + 1) // self.world_size)


@lru_cache(maxsize=8)
def _windows(shuffle: Shuffle, epoch: int) -> tuple[Window, ...]:
    num_shards = -(-shuffle.num_rows // shuffle.shard_size)
    if shuffle.is_one_window:
        return (Window(0, 0, shuffle.num_rows, tuple(range(num_shards))),)
    num_windows = -(-num_shards // max(1, shuffle.window_rows // shuffle.shard_size))
    sizes = [shard.num_rows for shard in plan_shards(shuffle.num_rows, shuffle.shard_size)]
    windows, start = [], 0
    drawn = _permutation(num_shards, shuffle.seed, epoch, 0, _SHARDS)
    for index, shards in enumerate(np.array_split(drawn, num_windows)):
        members = tuple(sorted(shards.tolist()))
        stop = start + sum(sizes[shard] for shard in members)
        windows.append(Window(index, start, stop, members))
        start = stop
    return tuple(windows)


def _permutation(length: int, seed: int, epoch: int, index: int, purpose: int) -> Rows:
    """A random order of 0..length-1, keyed by all the rest.

    Random keys with the number in their low bits are sorted: all keys differ, so that the result does not depend on the
    way of sorting, and nothing is used of numpy but Philox's raw stream, which NumPy promises never to change (NEP 19;
    `Generator.permutation` it may). The 64 - log2(length) random bits leave ties so rare that they bias nothing: one
    expected pair at 4 million rows, which then stays in order.
    """
    bits = max(1, (length - 1).bit_length())
    # The low word of the counter counts draws; the others and the key tell the streams apart.
    stream = np.random.Philox(counter=[0, index, epoch, purpose], key=[seed, 0])
    keys = stream.random_raw(length)
    keys >>= np.uint64(bits)
    keys <<= np.uint64(bits)
    keys |= np.arange(length, dtype=np.uint64)
    keys.sort()
    keys &= np.uint64((1 << bits) - 1)
    return keys.view(np.int64)
