"""What the benchmarks of the store share: the pairs, how they are written, and the clock."""

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

import storage
from pairflow import datasets
from pairflow.coupling import couple
from pairflow.spec import CouplingSpec, DatasetSpec, parse

Arrays = dict[str, np.ndarray]


def some_pairs(name: str, support_rows: int) -> tuple[Arrays, int]:
    """All training rows of a dataset as targets, with sources that look as coupled ones do."""
    part = datasets.load(parse(DatasetSpec, {"name": name})).part("train")
    target = np.ascontiguousarray(part.tokens)
    source = couple(
        target, target, vocab_size=part.vocab_size, spec=CouplingSpec(support_size=min(support_rows, len(part)))
    )
    return {"source": source, "target": target, "sample_id": np.arange(len(target))}, part.vocab_size


def header_of(name: str, arrays: Arrays, vocab_size: int, format: str, shard_size: int) -> storage.PairsHeader:
    return storage.PairsHeader(
        fingerprint=f"{shard_size:064x}",
        format=format,
        num_rows=len(arrays["target"]),
        length=arrays["target"].shape[1],
        vocab_size=vocab_size,
        shard_size=shard_size,
        spec={},
        dataset={"name": name, "digest": name},
        engine="cpu/1",
    )


def write(root: Path, header: storage.PairsHeader, arrays: Arrays) -> None:
    """The shards and their records, as many at a time as there are cores, which is what a coupling's workers do."""
    url = storage.pairs_url(root, header.fingerprint, header.format)
    storage.begin_pairs(url, header)

    def write(shard: storage.ShardPlan) -> None:
        columns = (arrays[name][shard.start : shard.stop] for name in ("source", "target", "sample_id"))
        storage.write_shard(url, header, shard.index, *columns)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(write, header.plan()):
            pass


def commit(url: str, header: storage.PairsHeader) -> None:
    (Path(url) / "_manifest.json").unlink(missing_ok=True)
    storage.commit_pairs(url, header, {}, progress=False)


def seconds(
    turns: dict[str, Callable[[], object]], repeats: int, before: Callable[[str], object] = lambda _: None
) -> dict[str, float]:
    """Median wall seconds of each, taken in turns; the first turn, in which modules load, is not counted.

    `before` is called with the name of what comes next, outside the clock.
    """
    taken: dict[str, list[float]] = {name: [] for name in turns}
    for turn in range(repeats + 1):
        for name, work in turns.items():
            before(name)
            started = time.perf_counter()
            work()
            if turn:
                taken[name].append(time.perf_counter() - started)
    return {name: float(np.median(each)) for name, each in taken.items()}
