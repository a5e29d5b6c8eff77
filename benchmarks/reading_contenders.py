"""The readers that benchmarks/reading.py measures, each in a process of its own.

It runs in the peers' environment too, which has no PairFlow: a reader imports what it needs. All read the same pairs,
`FOLDER/target.npy` and `source.npy` (ours from the same pairs in a store), in what they call a shuffle, and hand out
batches of 1,024 rows as arrays or tensors. FOLDER/NAME is for what a reader has to write first.
"""

import json
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

BATCH_SIZE, SEED = 1024, 5
_BROKEN_OFF = 20  # the batch after which an epoch is gone on with
_AT_MOST_S = 5.0
Batch = tuple[Any, Any]  # target, source


class Reader:
    """One way of reading; `prepare` and imports are not on the clock, `open` is.

    Attributes:
        resumes: whether it can go on in the middle of an epoch by what its library has.
    """

    resumes = True

    def __init__(self, folder: Path, own: Path, workers: int) -> None:
        self.folder, self.own, self.workers = folder, own, workers

    def prepare(self) -> None:
        """Writes what it reads."""

    def open(self) -> None:
        """From nothing to where the first batch can be asked for."""

    def batches(self) -> Iterator[Batch]:
        """Up to the end of an epoch."""
        raise NotImplementedError

    def state(self) -> Any:
        """Where it stands."""
        return None

    def go_to(self, state: Any) -> None:
        """Stands where another one stood."""


class Memmap(Reader):
    """numpy's files, mapped; a permutation. What resumes is the caller's own: the seed and a number of batches."""

    resumes = False

    def open(self) -> None:
        self.columns = [np.load(self.folder / f"{name}.npy", mmap_mode="r") for name in ("target", "source")]

    def batches(self) -> Iterator[Batch]:
        order = np.random.default_rng(SEED).permutation(len(self.columns[0]))
        for start in range(0, len(order), BATCH_SIZE):
            rows = order[start : start + BATCH_SIZE]
            yield self.columns[0][rows], self.columns[1][rows]


class Pairs(Reader):
    """`storage.PairReader`, its pairs kept in memory."""

    options: dict[str, Any] = {}  # noqa: RUF012

    def open(self) -> None:
        import storage

        (url,) = (self.folder / "store" / "pairs").glob("*.zarr")
        self.reader = storage.PairReader(storage.open_pairs(url), batch_size=BATCH_SIZE, seed=SEED, **self.options)

    def batches(self) -> Iterator[Batch]:
        for batch in self.reader:
            yield batch.target, batch.source

    def state(self) -> Any:
        return self.reader.state_dict()

    def go_to(self, state: Any) -> None:
        self.reader.load_state_dict(state)


class PairsStreamed(Pairs):
    """The same, from the store, in windows of 4 MiB."""

    options = {"resident_bytes": 0, "window_bytes": 4 << 20}  # noqa: RUF012


class Training(Reader):
    """What a streamed `fit` reads: a shuffle of all rows, in two windows of 4 MiB."""

    def open(self) -> None:
        import torch

        import storage
        from pairflow.replicas import Replica
        from pairflow.streaming import StreamedBatches

        (url,) = (self.folder / "store" / "pairs").glob("*.zarr")
        pairs = storage.open_pairs(url)
        self.step, self.steps_per_epoch = 0, len(pairs) // BATCH_SIZE
        self.reader = StreamedBatches(
            pairs,
            batch_size=BATCH_SIZE,
            seed=SEED,
            num_steps=2 * self.steps_per_epoch,
            memory_bytes=8 << 20,
            device=torch.device("cpu"),
            replica=Replica(),
        )

    def batches(self) -> Iterator[Batch]:
        for _ in range(self.step % self.steps_per_epoch, self.steps_per_epoch):
            self.step += 1
            yield self.reader.batch(self.step - 1)

    def state(self) -> Any:
        return self.step

    def go_to(self, state: Any) -> None:
        self.step = state


class HuggingFace(Reader):
    """datasets, its Arrow files mapped, with torch's DataLoader: a batch's rows at once, as its documentation advises.

    As Arrow tables, whose columns we turn into arrays: its own formats for torch and numpy take seven times as long.
    """

    resumes = False

    def prepare(self) -> None:
        import datasets

        columns = {name: np.load(self.folder / f"{name}.npy") for name in ("target", "source")}
        features = datasets.Features(
            {name: datasets.List(datasets.Value("uint8"), length=each.shape[1]) for name, each in columns.items()}
        )
        arrays = {name: list(each) for name, each in columns.items()}
        datasets.Dataset.from_dict(arrays, features=features).save_to_disk(self.own)

    def open(self) -> None:
        import datasets
        import torch

        held = datasets.load_from_disk(str(self.own)).with_format("arrow")
        order = torch.utils.data.RandomSampler(held, generator=torch.Generator().manual_seed(SEED))
        batches = torch.utils.data.BatchSampler(order, BATCH_SIZE, drop_last=False)
        self.loader = torch.utils.data.DataLoader(
            held, sampler=batches, batch_size=None, num_workers=self.workers, collate_fn=_as_it_is
        )

    def batches(self) -> Iterator[Batch]:
        for table in self.loader:
            columns = (table[name].combine_chunks() for name in ("target", "source"))
            target, source = (each.flatten().to_numpy().reshape(len(each), -1) for each in columns)
            yield target, source


class Mosaic(Reader):
    """mosaicml-streaming: MDS shards, its shuffle by blocks, its loader."""

    def prepare(self) -> None:
        _without_torchvision()
        from streaming import MDSWriter

        columns = {name: np.load(self.folder / f"{name}.npy") for name in ("target", "source")}
        kinds = {name: f"ndarray:uint8:{each.shape[1]}" for name, each in columns.items()}
        with MDSWriter(out=str(self.own), columns=kinds, size_limit=1 << 20) as out:
            for target, source in zip(columns["target"], columns["source"], strict=True):
                out.write({"target": target, "source": source})

    def open(self) -> None:
        _without_torchvision()
        from streaming import StreamingDataLoader, StreamingDataset
        from streaming.base.util import clean_stale_shared_memory

        clean_stale_shared_memory()
        held = StreamingDataset(local=str(self.own), shuffle=True, shuffle_seed=SEED, batch_size=BATCH_SIZE)
        self.loader = StreamingDataLoader(held, batch_size=BATCH_SIZE, num_workers=self.workers)

    def batches(self) -> Iterator[Batch]:
        for batch in self.loader:
            yield batch["target"], batch["source"]

    def state(self) -> Any:
        return self.loader.state_dict()

    def go_to(self, state: Any) -> None:
        self.loader.load_state_dict(state)


class Lit(Reader):
    """litdata: its chunks, its shuffle, its loader."""

    def prepare(self) -> None:
        from litdata.streaming.cache import Cache

        columns = [np.load(self.folder / f"{name}.npy") for name in ("target", "source")]
        cache = Cache(str(self.own), chunk_bytes=1 << 20)
        for number, (target, source) in enumerate(zip(*columns, strict=True)):
            cache[number] = {"target": target, "source": source}
        cache.done()
        cache.merge()

    def open(self) -> None:
        from litdata import StreamingDataLoader, StreamingDataset

        held = StreamingDataset(str(self.own), shuffle=True, seed=SEED)
        self.loader = StreamingDataLoader(held, batch_size=BATCH_SIZE, num_workers=self.workers)

    def batches(self) -> Iterator[Batch]:
        for batch in self.loader:
            yield batch["target"], batch["source"]

    def state(self) -> Any:
        return self.loader.state_dict()

    def go_to(self, state: Any) -> None:
        self.loader.load_state_dict(state)


READERS: dict[str, type[Reader]] = {
    "numpy memmap": Memmap,
    "PairReader resident": Pairs,
    "PairReader streamed": PairsStreamed,
    "fit streamed": Training,
    "mosaicml-streaming": Mosaic,
    "litdata": Lit,
    "datasets": HuggingFace,
}


def _as_it_is(batch: Any) -> Any:
    return batch


def _without_torchvision() -> None:
    """mosaicml-streaming imports it, for pictures; what pip finds does not load beside a torch for CPUs."""
    from importlib.machinery import ModuleSpec
    from unittest.mock import MagicMock

    for name in ("torchvision", "torchvision.datasets", "torchvision.transforms", "torchvision.transforms.functional"):
        stand_in = MagicMock(__spec__=ModuleSpec(name, None), VisionDataset=type("VisionDataset", (), {}))
        sys.modules.setdefault(name, stand_in)


class _Memory:
    """The largest proportional set size of this process and its children, MiB, looked at five times a second."""

    def __init__(self) -> None:
        self.peak, self._over = 0.0, threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def look(self) -> float:
        import psutil

        this = psutil.Process()
        total = 0
        for each in (this, *this.children(recursive=True)):
            try:
                total += each.memory_full_info().pss
            except psutil.Error:
                continue
        return total / 2**20

    def _watch(self) -> None:
        while not self._over.wait(0.2):
            self.peak = max(self.peak, self.look())

    def end(self) -> float:
        self._over.set()
        return max(self.peak, self.look())


def _cpu() -> float:
    return sum(
        resource.getrusage(who).ru_utime + resource.getrusage(who).ru_stime
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )


def _first_batch(reader: Reader) -> None:
    reader.open()
    next(iter(reader.batches()))
    if isinstance(reader, Training):
        reader.reader.close()


def measure(make: Callable[[], Reader]) -> dict[str, Any]:
    """An epoch, or what is read of it in `_AT_MOST_S`; and the batch after another one, from a new reader."""
    _first_batch(make())  # imports, and files into the page cache
    before = _Memory()
    idle = before.end()
    memory, started = _Memory(), time.perf_counter()
    reader = make()
    reader.open()
    batches = iter(reader.batches())
    rows, total = 0, 0
    first = 0.0
    state, after = None, b""
    cpu = _cpu()
    for number, (target, source) in enumerate(batches):
        if number == 0:
            first = time.perf_counter() - started
        rows += len(target)
        total += int(np.asarray(target[:, 0]).sum(dtype=np.int64)) + int(np.asarray(source[:, 0]).sum(dtype=np.int64))
        if reader.resumes and number == _BROKEN_OFF:
            state = json.loads(json.dumps(reader.state()))
        if number == _BROKEN_OFF + 1:
            after = np.asarray(target, np.uint8).tobytes()
        if number > _BROKEN_OFF and time.perf_counter() - started > _AT_MOST_S:
            break
    seconds = time.perf_counter() - started
    found: dict[str, Any] = {
        "seconds_to_first": first,
        "pairs_per_s": rows / seconds,
        "rows": rows,
        "total": total,
        "memory_mib": memory.end() - idle,
        "idle_mib": idle,
    }
    found["pairs_per_cpu_s"] = rows / (_cpu() - cpu)
    if seconds < _AT_MOST_S:
        clock = time.perf_counter()
        found["later_pairs_per_s"] = sum(len(target) for target, _ in reader.batches()) / (time.perf_counter() - clock)
    del batches, reader
    if state is not None:
        started = time.perf_counter()
        reader = make()
        reader.open()
        reader.go_to(state)
        target, _ = next(iter(reader.batches()))
        found["seconds_to_resume"] = time.perf_counter() - started
        found["resumes_exactly"] = np.asarray(target, np.uint8).tobytes() == after
    return found


def main(name: str, folder: Path, workers: int) -> None:
    """Prepares, if it was not done, and measures, but for a negative number of workers; prints JSON."""
    own = folder / name.replace(" ", "-")
    kind = READERS[name]
    prepared = 0.0
    if not own.exists():
        started = time.perf_counter()
        kind(folder, own, workers).prepare()
        prepared = time.perf_counter() - started
    found = measure(lambda: kind(folder, own, workers)) if workers >= 0 else {}
    print(json.dumps({"prepare_s": prepared} | found))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
