"""Pairing at 10^6 and 10^7 rows: what a row costs there, what a worker holds, and what 10,000 shards cost around it.

    PAIRFLOW_DATA_DIR=DIR python benchmarks/scale.py

Rows are synthetic: by position, a token is that of a random real row with the same token before it, so that counts and
neighbouring pairs of tokens are as in QM9 (D = 32) and in ZINC (D = 74). Each case is a process of its own, in which
some rows are coupled by one thread, as a shard's task does; the whole is said by multiplying. Then a store of 10,000
shards is planned, half written, resumed and committed, and as many tasks that do nothing are handed out.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import psutil
import ray
import typer
from machine import write_results
from rich.console import Console
from rich.table import Table

import storage
from flows.jobs.shards import ShardStatistics, default_shard_size, make_shards
from pairflow import datasets
from pairflow.coupling import couple, couple_counted
from pairflow.coupling.assignment import couple_pairs
from pairflow.spec import CouplingSpec, DatasetSpec, parse

_SOURCES = {32: {"name": "qm9"}, 74: {"name": "zinc-250k"}}
_SPECS = {
    "exact": CouplingSpec(),
    "support 64,000": CouplingSpec(support_size=64_000),
    "assignment": CouplingSpec(kind="assignment"),
}
_CORES = (2, 64, 1000)


def synthetic(length: int, num_rows: int) -> tuple[np.ndarray, int]:
    """Tokens [M, D] of a first-order chain by position, and K."""
    part = datasets.load(parse(DatasetSpec, _SOURCES[length]), progress=False).part("train")
    real, random = part.tokens, np.random.default_rng(0)
    assert real.shape[1] == length, real.shape
    made = np.empty((num_rows, length), real.dtype, order="F")
    made[:, 0] = real[random.integers(len(real), size=num_rows), 0]
    for position in range(1, length):
        order = np.argsort(real[:, position - 1], kind="stable")
        before = real[order, position - 1]
        first = np.searchsorted(before, made[:, position - 1], side="left")
        last = np.searchsorted(before, made[:, position - 1], side="right")
        made[:, position] = real[order[random.integers(first, last)], position]
    return made, part.vocab_size


def _one(length: int, num_rows: int, name: str, rows: int) -> dict[str, Any]:
    spec = _SPECS[name]
    tokens, vocab_size = synthetic(length, num_rows)
    couple(tokens[:64], tokens[:4096], vocab_size=vocab_size, spec=CouplingSpec(), num_threads=1)  # compiles
    small = CouplingSpec(kind="assignment", block_size=64)
    couple(tokens[:64], vocab_size=vocab_size, spec=small, num_threads=1)
    held = psutil.Process().memory_info().rss
    Path("/proc/self/clear_refs").write_text("5")  # the peak from here on
    started = time.perf_counter()
    _some(tokens, vocab_size, spec, 0, 1)
    first = time.perf_counter()
    count = spec.block_size if spec.kind == "assignment" else rows
    _some(tokens, vocab_size, spec, count, 2 * count)
    seconds = time.perf_counter() - first
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return {
        "coupling": name,
        "rows": num_rows,
        "length": length,
        "vocab_size": vocab_size,
        "rows_measured": count,
        "ms_per_row": 1e3 * seconds / count,
        "seconds_of_the_first_row": first - started,
        "support_mb": tokens.nbytes / 1e6,
        "worker_mb_beside_support": (int(peak.split()[1]) * 1024 - held) / 1e6,
        "shard_rows": default_shard_size(min(num_rows, spec.support_size or num_rows), length),
        "core_hours": seconds / count * num_rows / 3600,
    }


def _some(tokens: np.ndarray, vocab_size: int, spec: CouplingSpec, start: int, stop: int) -> None:
    if spec.kind == "assignment":
        couple_pairs(tokens, start, stop, vocab_size=vocab_size, spec=spec)
        return
    ids = np.arange(start, stop)
    target = np.ascontiguousarray(tokens[ids])
    couple_counted(target, tokens, vocab_size=vocab_size, spec=spec, sample_ids=ids, num_threads=1)


def _shards(number: int, size: int, scratch: Path) -> dict[str, Any]:
    """Seconds around the coupling itself, for a store of so many shards."""
    tokens, vocab_size = synthetic(32, 64_000)
    header = storage.PairsHeader(
        fingerprint="0" * 64,
        format="zarr",
        num_rows=number * size,
        length=32,
        vocab_size=vocab_size,
        shard_size=size,
        spec={},
        dataset={"digest": "synthetic"},
        engine="cpu/1",
    )
    times: dict[str, float] = {}

    def timed(name: str, started: float) -> None:
        times[name] = time.perf_counter() - started

    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        url = f"{folder}/pairs.zarr"
        header = storage.begin_pairs(url, header)

        def write(shards: list[storage.ShardPlan]) -> None:
            for shard in shards:
                rows = tokens[np.arange(shard.start, shard.stop) % len(tokens)]
                storage.write_shard(url, header, shard.index, rows, rows, np.arange(shard.start, shard.stop))

        started = time.perf_counter()
        missing = storage.missing_shards(url, header)
        timed("plan", started)
        assert len(missing) == number
        started = time.perf_counter()
        write(missing[::2])
        timed("write_half", started)
        started = time.perf_counter()
        missing = storage.missing_shards(url, header)
        timed("resume", started)
        assert len(missing) == number // 2
        write(missing)
        started = time.perf_counter()
        storage.commit_pairs(url, header, {}, progress=False)
        timed("commit", started)
        started = time.perf_counter()
        assert storage.find_manifest(url) is not None
        timed("read_manifest", started)
        handed_out = _hand_out(header)
    return {"shards": number, "rows_a_shard": size, "seconds": times | {"hand_out": handed_out}}


def _hand_out(header: storage.PairsHeader) -> float:
    """Seconds for tasks that do nothing, a shard each, as the job hands them out."""
    ray.init(num_cpus=2, include_dashboard=False, _node_ip_address="127.0.0.1", object_store_memory=2**28)

    @ray.remote
    def nothing(shard: storage.ShardPlan) -> ShardStatistics:
        return ShardStatistics(shard.num_rows, np.zeros(33, np.int64), np.zeros(32, np.int64), 0)

    total: list[ShardStatistics] = []

    def add(statistics: ShardStatistics) -> None:
        total[:] = [total[0] + statistics] if total else [statistics]

    plan = header.plan()
    make_shards("", plan[:100], nothing.remote, 4, add)  # starts the workers
    total.clear()
    started = time.perf_counter()
    make_shards("", plan, nothing.remote, 4, add)
    seconds = time.perf_counter() - started
    assert total[0].rows == header.num_rows
    ray.shutdown()
    return seconds


def main(
    sizes: Annotated[list[int] | None, typer.Option(help="Repeatable: rows of the whole.")] = None,
    lengths: Annotated[list[int] | None, typer.Option(help="Repeatable: 32 or 74.")] = None,
    rows: Annotated[int, typer.Option(help="Rows that are coupled a case.")] = 256,
    shards: Annotated[int, typer.Option(help="Shards of the store.")] = 10_000,
    shard_size: Annotated[int, typer.Option(help="Rows of each.")] = 1000,
    scratch: Annotated[Path, typer.Option(help="Folder of that store.")] = Path("/tmp"),  # noqa: S108
    one: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    """Prints tables and writes benchmarks/results/scale.json."""
    if one is not None:
        print(json.dumps(_one(*json.loads(one))))
        return
    results: list[dict[str, Any]] = []
    hours = [f"{cores:,} cores, h" for cores in _CORES]
    table = Table("coupling", "M", "D", "ms a row", "first row, s", "MB beside the support", "core hours", *hours)
    for length in lengths or _SOURCES:
        for size in sizes or (10**6, 10**7):
            for name in _SPECS:
                command = [sys.executable, __file__, "--one", json.dumps([length, size, name, rows])]
                done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
                each = json.loads(done.stdout.splitlines()[-1])
                results.append(each)
                figures = [f"{each['ms_per_row']:.3f}", f"{each['seconds_of_the_first_row']:.1f}"]
                figures += [f"{each['worker_mb_beside_support']:.0f}", f"{each['core_hours']:.2f}"]
                figures += [f"{each['core_hours'] / cores:.3f}" for cores in _CORES]
                table.add_row(name, f"{size:,}", str(length), *figures)
    Console(width=140).print(table)
    results.append(_shards(shards, shard_size, scratch))
    print(json.dumps(results[-1]))
    print(write_results("scale", results))


if __name__ == "__main__":
    typer.run(main)
