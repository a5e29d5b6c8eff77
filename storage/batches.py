"""Batches of pairs for training: shuffled by a seed, resumable within an epoch, shared out between ranks."""

from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from pairflow.errors import SpecError
from storage.content import Rows
from storage.reader import PairColumn, Pairs
from storage.shuffle import BatchPlan, Shuffle

_STATE_VERSION = 1
_WINDOW_BYTES = 256 * 1024 * 1024
_RESIDENT_BYTES = 2 * 1024 * 1024 * 1024

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class PairBatch:
    """One rank's part of a batch, in arrays of their own that `torch.from_numpy` takes as they are.

    Attributes:
        rows: [b] int64, numbers of the pairs in the coupling.
        source: [b, D] unsigned tokens, x_0.
        target: [b, D] likewise, x_1.
    """

    rows: Rows
    source: Array
    target: Array

    def __len__(self) -> int:
        return len(self.rows)


class PairReader:
    """Batches of a coupling in a seeded shuffle; iterating goes from where it stands to the end of the epoch.

        reader = PairReader(open_pairs(url), batch_size=1024, seed=0, rank=rank, world_size=world_size)
        reader.load_state_dict(saved)  # goes on with the batch after the last one that was handed out
        while reader.epoch < 10:
            for batch in reader:
                step(torch.from_numpy(batch.source), torch.from_numpy(batch.target))
                saved = reader.state_dict()

    Batch s of an epoch is rows s·B to (s+1)·B - 1 of the epoch's order, which is a function of (seed, epoch) and of
    the coupling alone. Each rank gets a consecutive part of it, of sizes that differ by one at most: so the union over
    ranks does not depend on their number, which may change at any batch. Every epoch visits every row once. Where B
    does not divide N, its last batch is short (with fewer rows than ranks, some ranks get an empty part, so that all
    take the same number of steps), or with `drop_last` it is left out.

    Pairs that fit into `resident_bytes` are read once and kept; of others a window is held and the next is read ahead
    by a thread, each rank reading all of it and keeping its own rows. The order is the same either way. Every file is
    checked against the manifest as it is read.

    Args:
        pairs: from `open_pairs`.
        batch_size: B, rows of a batch over all ranks.
        seed: of the shuffle.
        rank: of this process.
        world_size: number of processes that share each batch.
        drop_last: leaves out the last batch of an epoch where it is short.
        window_bytes: of tokens that are shuffled together; part of the order's key where not all pairs fit into it.
        resident_bytes: of tokens that may be kept; never changes the order.

    Raises:
        SpecError: an argument does not fit.
    """

    def __init__(
        self,
        pairs: Pairs,
        *,
        batch_size: int,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        drop_last: bool = False,
        window_bytes: int = _WINDOW_BYTES,
        resident_bytes: int = _RESIDENT_BYTES,
    ) -> None:
        _check("batch_size", batch_size, 1, 2**31)
        _check("seed", seed, 0, 2**63)
        _check("world_size", world_size, 1, 2**31)
        _check("rank", rank, 0, world_size)
        _check("window_bytes", window_bytes, 1, 2**62)
        _check("resident_bytes", resident_bytes, 0, 2**62)
        row_bytes = 2 * pairs.target.dtype.itemsize * pairs.target.shape[1]
        self.pairs = pairs
        self.batch_size = batch_size
        self.rank = rank
        self.world_size = world_size
        self.drop_last = drop_last
        self.shuffle = Shuffle(len(pairs), pairs.manifest.shard_size, max(1, window_bytes // row_bytes), seed)
        self.placement: Literal["resident", "streamed"] = (
            "resident" if len(pairs) * row_bytes <= resident_bytes else "streamed"
        )
        used = len(pairs) - (len(pairs) % batch_size if drop_last else 0)
        if used == 0:
            raise SpecError(
                f"batch_size {batch_size} leaves no whole batch of {len(pairs)} pairs; take a smaller one, or keep the "
                "short batch with drop_last=False"
            )
        self._plan = BatchPlan(self.shuffle, used, batch_size, rank, world_size)
        self._epoch = 0
        self._step = 0
        self._resident: tuple[Array, Array] | None = None

    @property
    def epoch(self) -> int:
        """The epoch of the next batch."""
        return self._epoch

    @property
    def step(self) -> int:
        """The number, within its epoch, of the next batch."""
        return self._step

    @property
    def steps_per_epoch(self) -> int:
        return self._plan.num_steps

    def __len__(self) -> int:
        """Batches left in this epoch."""
        return self.steps_per_epoch - self._step

    def __iter__(self) -> Iterator[PairBatch]:
        """Batches up to the end of the epoch; then the reader stands at the start of the next one.

        Raises:
            ShardCorruptError: a file is not what was written.
            StoreError: the store cannot be read.
        """
        return self._from_memory() if self.placement == "resident" else self._from_store()

    def rows(self) -> Iterator[Rows]:
        """The row numbers of the same batches, nothing read: for those who keep all pairs on a device.

        source = torch.from_numpy(pairs.source[:]).to("cuda")
        for rows in reader.rows():
            x_0 = source[torch.from_numpy(rows).to("cuda")]
        """
        for (rows,) in self._cut((rows,) for rows in self._plan.visits(self._epoch, self._step)):
            yield rows

    def _from_memory(self) -> Iterator[PairBatch]:
        if self._resident is None:
            columns = self.pairs.read(("source", "target"))
            self._resident = columns["source"], columns["target"]
        source, target = self._resident
        for rows in self.rows():
            yield PairBatch(rows, source.take(rows, axis=0), target.take(rows, axis=0))

    def _from_store(self) -> Iterator[PairBatch]:
        """Each window is put in order as it is read, so that a batch is a slice of it."""
        with ThreadPoolExecutor(1, thread_name_prefix="pairs") as reading_ahead:
            visits = self._plan.visits(self._epoch, self._step)

            def begin() -> Future[tuple[Array, ...]] | None:
                rows = next(visits, None)
                return None if rows is None else reading_ahead.submit(self._read, rows)

            def windows() -> Iterator[tuple[Array, ...]]:
                coming = begin()
                while coming is not None:
                    window, coming = coming.result(), begin()
                    yield window

            for rows, source, target in self._cut(windows()):
                yield PairBatch(rows, source, target)

    def _cut(self, stretches: Iterator[tuple[Array, ...]]) -> Iterator[tuple[Array, ...]]:
        """Consecutive rows, which come in stretches of any length, as this rank's parts of the batches."""
        epoch, step = self._epoch, self._step
        held, done = next(stretches), 0
        while step < self.steps_per_epoch:
            if (self._epoch, self._step) != (epoch, step):
                raise SpecError(
                    f"the reader was moved to epoch {self._epoch}, step {self._step} while it was iterated at epoch "
                    f"{epoch}, step {step}; iterate it anew after load_state_dict, and in one loop at a time"
                )
            start, stop = self._plan.share(step)
            parts = [tuple(array[done : done + stop - start] for array in held)]
            missing = stop - start - len(parts[0][0])
            done += len(parts[0][0])
            while missing:
                held, done = next(stretches), 0
                parts.append(tuple(array[:missing] for array in held))
                done = len(parts[-1][0])
                missing -= done
            # Before the batch is handed out, so that a state taken in the body of the loop is after it.
            step += 1
            self._epoch, self._step = (epoch, step) if step < self.steps_per_epoch else (epoch + 1, 0)
            yield parts[0] if len(parts) == 1 else tuple(map(np.concatenate, zip(*parts, strict=True)))

    def _read(self, rows: Rows) -> tuple[Array, ...]:
        """(rows, source, target) of rows in any order; each shard is read once, and one at a time is held."""
        shard_size = self.shuffle.shard_size
        tokens = {name: np.empty((len(rows), *column.shape[1:]), column.dtype) for name, column in self._columns()}
        shards = rows // shard_size
        places = np.argsort(shards, kind="stable")
        present, firsts = np.unique(shards[places], return_index=True)
        for index, here in zip(present.tolist(), np.split(places, firsts[1:]), strict=False):
            found = self.pairs.take(index, rows[here] - index * shard_size, tuple(tokens))
            for name, array in tokens.items():
                array[here] = found[name]
        return rows, tokens["source"], tokens["target"]

    def _columns(self) -> tuple[tuple[str, PairColumn], ...]:
        return ("source", self.pairs.source), ("target", self.pairs.target)

    def state_dict(self) -> dict[str, Any]:
        """Where the reader stands, as JSON values: the next batch is the one after the last that was handed out."""
        return {
            "state_version": _STATE_VERSION,
            "epoch": self._epoch,
            "step": self._step,
            **self._key(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes where another reader of the same pairs stood; rank and world size may differ.

        Raises:
            SpecError: the state is of another order, in which its position means something else.
        """
        key = self._key()
        if state.get("state_version") != _STATE_VERSION:
            raise SpecError(
                f"the reader's state has version {state.get('state_version')!r}, expected {_STATE_VERSION}; give what "
                "PairReader.state_dict returned"
            )
        if differing := [name for name, value in key.items() if state.get(name) != value]:
            found = ", ".join(f"{name} {state.get(name)!r}, here {key[name]!r}" for name in differing)
            raise SpecError(
                f"the reader's state is of another order of batches: {found}; open the same pairs with the same "
                "arguments (rank and world_size may differ)"
            )
        epoch, step = state.get("epoch"), state.get("step")
        _check("epoch of the reader's state", epoch, 0, 2**63)
        _check("step of the reader's state", step, 0, self.steps_per_epoch)
        self._epoch, self._step = int(epoch or 0), int(step or 0)

    def _key(self) -> dict[str, Any]:
        """What the batches depend on, other than rank and world size."""
        key: dict[str, Any] = {
            "content_sha256": self.pairs.manifest.content_sha256,
            "seed": self.shuffle.seed,
            "batch_size": self.batch_size,
            "drop_last": self.drop_last,
        }
        if not self.shuffle.is_one_window:
            key |= {"window_rows": self.shuffle.window_rows, "shard_size": self.shuffle.shard_size}
        return key


def _check(name: str, value: Any, low: int, below: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value < below:
        raise SpecError(f"{name} must be an integer from {low} to {below - 1}, got {value!r}")
