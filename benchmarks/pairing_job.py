"""What Ray adds to a pairing: 1 and 2 workers beside the engine called directly, and the memory of a worker.

    python benchmarks/pairing_job.py

The same rows of QM9 are coupled directly (one thread, nothing written), by one worker and by two (each shard written,
synced and recorded), in turns on a warm cluster; medians are compared.
"""

import os
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
from flows.jobs.shards import ShardStatistics, couple_shards, default_shard_size
from pairflow import datasets
from pairflow.coupling import couple
from pairflow.spec import CouplingSpec, DatasetSpec, parse


def main(
    dataset: Annotated[str, typer.Option(help="Registry name.")] = "qm9",
    shards: Annotated[int, typer.Option(help="Shards coupled a turn; 0: all.")] = 8,
    shard_size: Annotated[int, typer.Option(help="Rows a shard; 0: the default.")] = 0,
    format: Annotated[str, typer.Option(help="zarr or parquet.")] = "zarr",
    repeats: Annotated[int, typer.Option(help="Turns.")] = 3,
) -> None:
    """Prints a table and writes benchmarks/results/pairing_job.json."""
    part = datasets.load(parse(DatasetSpec, {"name": dataset})).part("train")
    support = np.asfortranarray(part.tokens)
    size = shard_size or default_shard_size(len(part), part.length)
    spec = CouplingSpec()
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # loopback only
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        _node_ip_address="127.0.0.1",
        object_store_memory=2**30,
        log_to_driver=False,
    )
    header = storage.PairsHeader(
        fingerprint="0" * 64,
        format=format,
        num_rows=len(part),
        length=part.length,
        vocab_size=part.vocab_size,
        shard_size=size,
        spec=spec.model_dump(mode="json"),
        dataset={"digest": part.digest},
        engine="cpu/1",
    )
    plan = list(header.plan())[: shards or None]
    rows = np.arange(plan[-1].stop)

    def direct() -> float:
        started = time.perf_counter()
        couple(part.tokens[rows], support, vocab_size=part.vocab_size, spec=spec, sample_ids=rows, num_threads=1)
        return time.perf_counter() - started

    def by_workers(number: int) -> float:
        made: list[ShardStatistics] = []
        with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:  # on the disk of the checkout, not in memory
            url = str(Path(folder) / f"pairs.{format}")
            begun = storage.begin_pairs(url, header)
            started = time.perf_counter()
            couple_shards(
                url,
                begun,
                part,
                plan,
                spec,
                engine="cpu",
                cpus_per_task=1,
                gpus_per_task=0,
                num_workers=number,
                support_parts=1,
                on_shard=made.append,
            )
            seconds = time.perf_counter() - started
        assert sum(each.rows for each in made) == len(rows)
        return seconds

    couple(support[:2], support, vocab_size=part.vocab_size, spec=spec, num_threads=1)  # compiles
    by_workers(2)  # starts the workers
    turns = [(direct(), by_workers(1), by_workers(2)) for _ in range(repeats)]
    alone, one, two = (float(np.median(column)) for column in zip(*turns, strict=True))
    memory = worker_memory()
    ray.shutdown()
    result: dict[str, Any] = {
        "dataset": dataset,
        "support_bytes": support.nbytes,
        "shard_size": size,
        "shards": len(plan),
        "rows": len(rows),
        "format": format,
        "direct_seconds": alone,
        "one_worker_seconds": one,
        "two_workers_seconds": two,
        "two_over_one": one / two,
        "overhead": one / alone - 1,
        "seconds_by_turn": turns,
        **memory,
    }
    table = Table(
        "rows", "shards of", "direct, s", "1 worker, s", "2 workers, s", "2 over 1", "overhead", "peak RSS, MB"
    )
    table.add_row(
        f"{len(rows):,}",
        f"{size:,}",
        *(f"{each:.2f}" for each in (alone, one, two)),
        f"{one / two:.2f}×",
        f"{result['overhead']:.1%}",
        f"{memory['worker_peak_rss_bytes'] / 1e6:.0f}, of it {memory['worker_shared_bytes'] / 1e6:.0f} shared",
    )
    Console().print(table)
    print(write_results("pairing_job", [result]))


def worker_memory() -> dict[str, int]:
    """Peak resident bytes of the largest worker, and what of its memory now is shared or its own."""
    found = []
    for process in psutil.process_iter(["name", "cmdline"]):
        title = " ".join(process.info["cmdline"] or []).strip()
        if title.startswith("ray::") and any(parent.pid == os.getpid() for parent in process.parents()):
            status = dict(
                line.split(":", 1)
                for line in Path(f"/proc/{process.pid}/status").read_text().splitlines()
                if ":" in line
            )
            kib = {name: int(status[name].split()[0]) * 1024 for name in ("VmHWM", "RssShmem", "RssFile", "RssAnon")}
            found.append((kib["VmHWM"], kib["RssShmem"], kib["RssFile"], kib["RssAnon"]))
    peak, shared, files, own = max(found)
    return {
        "worker_peak_rss_bytes": peak,
        "worker_shared_bytes": shared,
        "worker_file_bytes": files,
        "worker_anonymous_bytes": own,
    }


if __name__ == "__main__":
    typer.run(main)
