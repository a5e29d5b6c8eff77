"""Training data that is read while it is used, in the order and the batches of data that lie on the device.

The order of an epoch is a permutation of all rows, so any batch may need rows of any shard; but it is known ahead. So
the rows of many coming batches, a window, are gathered in one pass over the shards that hold them, by a thread, while
the window before is trained on. A pass costs about the same for a window of any size: the more memory, the fewer passes
an epoch takes.
"""

import os
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from pairflow.batches import Epochs
from pairflow.replicas import Replica
from pairflow.row_source import Array, RowSource, columns_of, row_bytes

_BYTES_BESIDE = 24  # of a row while its window is gathered: its number, its place, and both once more, sorted


@dataclass(frozen=True, eq=False)
class _Window:
    """This replica's rows of the batches `start` to `stop` (exclusive), by column, one batch after the other."""

    start: int
    stop: int
    columns: dict[str, Array]


class StreamedBatches(Epochs):
    """The batches of `Batches`, from a source that is read as they are needed.

    Of several replicas each reads its own rows alone: those of the others are zeros, which `Replica.share` cuts off, so
    that all draw the noise of the whole batch.

    Args:
        rows: to train on.
        batch_size: B, of all replicas.
        seed: of the order.
        num_steps: of the training.
        memory_bytes: of the two windows, the one in use and the one that is read; one batch each at least.
        device: of the batches.
        replica: whose rows are read.
    """

    def __init__(
        self,
        rows: RowSource,
        *,
        batch_size: int,
        seed: int,
        num_steps: int,
        memory_bytes: int,
        device: torch.device,
        replica: Replica,
    ) -> None:
        super().__init__(rows.target.shape[0], batch_size=batch_size, seed=seed, device=device)
        share = batch_size // replica.world_size
        self._source_of_rows = rows
        self._num_steps = num_steps
        self._mine = slice(replica.rank * share, (replica.rank + 1) * share)
        self._window_steps = max(1, memory_bytes // 2 // ((row_bytes(rows) + _BYTES_BESIDE) * share))
        # A training on the CPU leaves one thread to the reading: its own threads wait for each other.
        self._num_threads = 1 if device.type == "cpu" else max(1, min(8, (os.cpu_count() or 1) // 2))
        self._ahead = ThreadPoolExecutor(1, thread_name_prefix="rows")
        self._stopped = threading.Event()
        self._window = _Window(0, 0, {})
        self._coming: tuple[int, Future[_Window] | None] = (0, None)

    def batch(self, step: int) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(target, source or None) of a step, int64 [B, D] on the device; quick for steps in order.

        Raises:
            PairFlowError: what the source raised.
        """
        if not self._window.start <= step < self._window.stop:
            self._window = self._window_from(step)
        tokens = {name: self._on_device(column, step) for name, column in self._window.columns.items()}
        return tokens["target"], tokens.get("source")

    def close(self) -> None:
        """Ends the reading, with the shard that it is at."""
        self._stopped.set()
        self._ahead.shutdown(cancel_futures=True)

    def _on_device(self, column: Array, step: int) -> torch.Tensor:
        share = self._mine.stop - self._mine.start
        first = (step - self._window.start) * share
        part = column[first : first + share]
        tokens = torch.from_numpy(part if part.dtype == np.uint8 else part.astype(np.int64))
        mine = tokens.to(self.device, non_blocking=True).long()
        if share == self.batch_size:
            return mine
        whole = torch.zeros((self.batch_size, column.shape[1]), dtype=torch.int64, device=self.device)
        whole[self._mine] = mine
        return whole

    def _window_from(self, step: int) -> _Window:
        """The window that begins with a step; the one after it is begun."""
        starts_at, coming = self._coming
        if coming is None or starts_at != step:
            self._stopped.set()  # what is being read is not wanted
            coming = self._begin(step)
        self._window = _Window(0, 0, {})  # its memory is for the next but one
        window = coming.result()
        self._coming = window.stop, self._begin(window.stop) if window.stop < self._num_steps else None
        return window

    def _begin(self, start: int) -> Future[_Window]:
        stop = max(start + 1, min(start + self._window_steps, self._num_steps))
        self._stopped = threading.Event()
        return self._ahead.submit(self._gather, start, stop, self._stopped)

    def _gather(self, start: int, stop: int, stopped: threading.Event) -> _Window:
        """Reads a window: every shard that holds some of its rows once, in the order of the rows."""
        source = self._source_of_rows
        names = columns_of(source)
        rows = np.concatenate([self.rows(step)[self._mine] for step in range(start, stop)])
        places = np.argsort(rows, kind="stable")
        rows = rows[places]
        shards, firsts = np.unique(rows // source.shard_size, return_index=True)
        lasts = [*firsts[1:].tolist(), len(rows)]
        length = source.target.shape[1]
        columns = {name: np.empty((len(rows), length), getattr(source, name).dtype) for name in names}

        def fill(index: int, first: int, last: int) -> None:
            if stopped.is_set():
                raise CancelledError
            for name, found in source.take(index, rows[first:last] - index * source.shard_size, names).items():
                columns[name][places[first:last]] = found

        _each(fill, (shards.tolist(), firsts.tolist(), lasts), self._num_threads)
        return _Window(start, stop, columns)


def _each(work: Callable[..., None], arguments: tuple[list[int], ...], num_threads: int) -> None:
    if num_threads == 1:
        for each in zip(*arguments, strict=True):
            work(*each)
        return
    with ThreadPoolExecutor(num_threads, thread_name_prefix="rows") as pool:
        for _ in pool.map(work, *arguments):
            pass
