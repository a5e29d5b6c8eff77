"""Training on pairs that are read while they are used, beside the same training with its pairs on the device.

    python benchmarks/streaming.py

Pairs are made for it: seeded uniform tokens, 8 x 8 of 17 grey levels as `digits` has them, which compress badly, in the
largest shards that a coupling has by default. Every training is a process of its own, so that its memory is its own:
the peak that the kernel counted (VmHWM), and of what is in no file (RssAnon), sampled ten times a second.

- "memory": some hundred steps on 1/16 and on all of `--gigabytes`, with the same bound on the rows that it holds; and
  the seconds to its first steps, in which all tokens are read once, checked and hashed, and the first window is read.
  The second one is being read while these steps are timed.
- "speed": streamed and resident in turns, from the fifth step on. Streamed is at its worst: its bound is so small that
  a window takes `--passes` readings of the store an epoch, and the timed steps wait for several such readings, as where
  10 GB are trained on with a window of 10 GB / passes. Medians of the turns, and their ratio.
"""

import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from machine import RESULTS, write_results
from rich.console import Console
from rich.table import Table

import storage
from storage.documents import render
from storage.layout import describe, layout_of
from storage.manifest import Manifest, StoredObject

LENGTH, VOCAB_SIZE, SHARD_SIZE, BATCH_SIZE = 64, 17, 16_384, 32
_DISTINCT = 128  # shards
_WARM_UP = 5
_NUM_STEPS = 1_000_000  # of a training that is broken off long before: windows are as large as memory allows
NETWORKS = {"DiT small": ("dit", "small"), "U-Net tiny": ("unet", "tiny")}
_NETWORKS = list(NETWORKS)
_SHARES = [1 / 16, 1.0]


def make_pairs(root: Path, num_shards: int, format: str) -> str:
    """URL of seeded pairs in full shards; shard k has the files of shard k mod 128, as of a row's further sources.

    The files are written by themselves and the manifest as it would be, since a coupling's own commit reads all of it.
    """
    header = storage.PairsHeader(
        fingerprint=f"{num_shards:064x}",
        format=format,
        num_rows=num_shards * SHARD_SIZE,
        length=LENGTH,
        vocab_size=VOCAB_SIZE,
        shard_size=SHARD_SIZE,
        spec={},
        dataset={"name": "seeded", "digest": "seeded"},
        engine="none",
    )
    place = storage.open_folder(storage.pairs_url(root, header.fingerprint, header.format))
    if storage.has_manifest(place.url):
        return place.url
    layout, records, described = layout_of(header), [], dict[str, StoredObject]()
    for shard in header.plan():
        names = layout.objects(header, shard.index)
        like = layout.objects(header, shard.index % _DISTINCT)
        if shard.index < _DISTINCT:
            rng = np.random.default_rng(shard.index)
            target, source = rng.integers(VOCAB_SIZE, size=(2, SHARD_SIZE, LENGTH), dtype=np.uint8)
            columns = {"target": target, "source": source, "sample_id": np.arange(shard.start, shard.stop)}
            for name, data in layout.encode(header, shard, columns).items():
                described[name] = describe(name, data)
                Path(place.path(name)).parent.mkdir(parents=True, exist_ok=True)
                Path(place.path(name)).write_bytes(data)
        else:
            for name, there in zip(names, like, strict=True):
                shutil.copyfile(place.path(there), place.path(name))
        objects = tuple(
            described[there].model_copy(update={"name": name}) for name, there in zip(names, like, strict=True)
        )
        about = {"fingerprint": header.fingerprint, "index": shard.index, "start": shard.start, "stop": shard.stop}
        records.append(storage.ShardRecord(**about, objects=objects, content_sha256="ab" * 32))
    files = layout.metadata(header)
    manifest = Manifest(
        **header.model_dump(),
        arrays={},
        shards=tuple(records),
        metadata=tuple(describe(name, data) for name, data in files.items()),
        content_sha256="ab" * 32,
        summary={},
        created_by="benchmark",
    )
    for name, data in {**files, "_manifest.json": render(manifest)}.items():
        place.write(name, data)
    return place.url


def train(url: str, network: str, placement: str, memory_bytes: int, steps: int, threads: int) -> None:
    """One training in this process; prints what it took as JSON."""
    import torch

    from pairflow.presets import SIZES
    from pairflow.spec import TrainingSpec
    from pairflow.training import StepMetrics, fit
    from pairflow.training_data import Placing

    torch.set_num_threads(threads)
    architecture, size = NETWORKS[network]
    anonymous = _watch()
    clock: dict[int, tuple[float, float]] = {}

    def on_step(metrics: StepMetrics) -> None:
        clock[metrics.step] = time.perf_counter(), time.process_time()
        if metrics.step == last:
            raise _Over

    pairs, last = storage.open_pairs(url), _WARM_UP + steps
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        with contextlib.suppress(_Over):
            fit(
                SIZES[architecture][size],
                TrainingSpec(num_steps=_NUM_STEPS, batch_size=BATCH_SIZE, learning_rate=1e-3, warmup_steps=0),
                pairs,
                vocab_size=VOCAB_SIZE,
                image_shape=(1, 8, 8) if architecture == "unet" else None,
                checkpoint_dir=folder,
                checkpoint_every=_NUM_STEPS,
                log_every=_WARM_UP,
                on_step=on_step,
                spike_factor=None,
                placing=Placing(placement, memory_bytes),  # type: ignore[arg-type]
                device="cpu",
                progress=False,
            )
    wall, cpu = (clock[last][k] - clock[_WARM_UP][k] for k in range(2))
    taken = {
        "seconds_to_warm": clock[_WARM_UP][0] - started,
        "steps_per_s": steps / wall,
        "cpu_s_per_step": cpu / steps,
    }
    print(json.dumps(taken | {"peak_rss_mib": _status("VmHWM"), "peak_anonymous_mib": anonymous[0]}))


class _Over(Exception):  # noqa: N818 - no error
    """All that was to be timed is."""


def _status(name: str) -> float:
    """A line of this process's memory, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))


def _watch() -> list[float]:
    seen = [0.0]

    def look() -> None:
        while True:
            seen[0] = max(seen[0], _status("RssAnon"))
            time.sleep(0.1)

    threading.Thread(target=look, daemon=True).start()
    return seen


def _trained(*words: object) -> dict[str, Any]:
    """`train` in a process of its own, with the same arguments."""
    command = [sys.executable, __file__, "train", *map(str, words)]
    environment = os.environ | {"OMP_WAIT_POLICY": "PASSIVE"}  # as jobs have it
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    taken = dict(json.loads(done.stdout.splitlines()[-1]))
    print(*words[1:], {name: round(value, 3) for name, value in taken.items()}, flush=True)
    return taken


app = typer.Typer()
app.command("train", hidden=True)(train)


@app.callback(invoke_without_command=True)
def main(
    context: typer.Context,
    gigabytes: Annotated[float, typer.Option(help="Of tokens, in the largest data set.")] = 10,
    memory_mb: Annotated[int, typer.Option(help="Rows that a streamed training holds, MiB.")] = 256,
    steps: Annotated[int, typer.Option(help="Steps that are timed.")] = 300,
    passes: Annotated[int, typer.Option(help="Readings of the store an epoch, where speed is measured.")] = 40,
    windows: Annotated[int, typer.Option(help="Windows that the steps of a turn are, where speed is measured.")] = 2,
    repeats: Annotated[int, typer.Option(help="Turns, where speed is measured.")] = 3,
    threads: Annotated[int, typer.Option(help="Threads of the training.")] = 2,
    format: Annotated[str, typer.Option(help="Of the store.")] = "zarr",
    network: Annotated[list[str], typer.Option(help="Repeatable: of which networks.")] = _NETWORKS,
    share: Annotated[list[float], typer.Option(help="Repeatable: of --gigabytes, where memory is measured.")] = _SHARES,
    only: Annotated[str, typer.Option(help="memory or speed; both by default.")] = "",
    folder: Annotated[Path | None, typer.Option(help="Where pairs are, or are written; kept.")] = None,
) -> None:
    """Prints a table and writes benchmarks/results/streaming.json."""
    if context.invoked_subcommand is not None:
        return
    root = Path(tempfile.mkdtemp(prefix="pairflow-streaming-")) if folder is None else folder
    results: list[dict[str, Any]] = []
    try:
        if only != "speed":
            results += measure_memory(root, gigabytes, memory_mb, steps, threads, format, network, share)
        if only != "memory":
            results += measure_speed(root, steps, passes, windows, repeats, threads, format, network)
    finally:
        if folder is None:
            shutil.rmtree(root)
    _show(results)
    measured = {(row["what"], row["network"], row["rows"]) for row in results}
    path = RESULTS / "streaming.json"
    earlier = json.loads(path.read_text())["results"] if path.exists() else []
    print(
        write_results(
            "streaming",
            [row for row in earlier if (row["what"], row["network"], row["rows"]) not in measured] + results,
        )
    )


def measure_memory(
    root: Path,
    gigabytes: float,
    memory_mb: int,
    steps: int,
    threads: int,
    format: str,
    networks: list[str],
    shares: list[float],
) -> list[dict[str, Any]]:
    """Streamed trainings on more and more data."""
    found = []
    for share in shares:
        num_shards = max(1, round(share * gigabytes * 1e9 / (2 * LENGTH * SHARD_SIZE)))
        num_rows = num_shards * SHARD_SIZE
        url = make_pairs(root, num_shards, format)
        for network in networks:
            about = {"what": "memory", "network": network, "gigabytes": num_rows * 2 * LENGTH / 1e9}
            about |= {"rows": num_rows, "memory_mb": memory_mb, "steps": steps, "format": format}
            found.append(about | _trained(url, network, "streamed", memory_mb << 20, steps, threads))
    return found


def measure_speed(
    root: Path, steps: int, passes: int, windows: int, repeats: int, threads: int, format: str, networks: list[str]
) -> list[dict[str, Any]]:
    """Streamed and resident trainings in turns, on data of `passes` windows, of which the timed steps are several."""
    window_rows = max(1, steps // windows) * BATCH_SIZE
    memory_bytes = 2 * window_rows * (2 * LENGTH + 24)  # as StreamedBatches counts them
    num_shards = -(-window_rows * passes // SHARD_SIZE)
    num_rows = num_shards * SHARD_SIZE
    url = make_pairs(root, num_shards, format)
    found = []
    for network in networks:
        turns: dict[str, list[dict[str, Any]]] = {"resident": [], "streamed": []}
        for _ in range(repeats):
            for placement, each in turns.items():
                each.append(_trained(url, network, placement, memory_bytes, steps, threads))
        row: dict[str, Any] = {"what": "speed", "network": network, "gigabytes": num_rows * 2 * LENGTH / 1e9}
        row |= {"rows": num_rows, "steps": steps, "passes_an_epoch": passes, "repeats": repeats, "format": format}
        for placement, each in turns.items():
            for name in ("steps_per_s", "cpu_s_per_step", "peak_rss_mib", "seconds_to_warm"):
                row[f"{placement}_{name}"] = statistics.median(turn[name] for turn in each)
        row["steps_per_s_ratio"] = row["streamed_steps_per_s"] / row["resident_steps_per_s"]
        row["steps_per_s_ratios_by_turn"] = [
            round(one["steps_per_s"] / other["steps_per_s"], 3)
            for one, other in zip(turns["streamed"], turns["resident"], strict=True)
        ]
        row["cpu_ratio"] = row["resident_cpu_s_per_step"] / row["streamed_cpu_s_per_step"]
        found.append(row)
    return found


def _show(results: list[dict[str, Any]]) -> None:
    table = Table(
        "network", "GB of tokens", "held MiB", "peak MiB", "of it anonymous", "to the first steps s", "steps/s"
    )
    for row in (row for row in results if row["what"] == "memory"):
        figures = ("peak_rss_mib", "peak_anonymous_mib", "seconds_to_warm", "steps_per_s")
        table.add_row(
            row["network"], f"{row['gigabytes']:.2f}", str(row["memory_mb"]), *(f"{row[name]:,.1f}" for name in figures)
        )
    Console().print(table)
    table = Table("network", "GB of tokens", "resident steps/s", "streamed steps/s", "ratio", "by turn", "by CPU time")
    for row in (row for row in results if row["what"] == "speed"):
        figures = ("gigabytes", "resident_steps_per_s", "streamed_steps_per_s", "steps_per_s_ratio")
        table.add_row(
            row["network"],
            *(f"{row[name]:.3g}" for name in figures),
            str(row["steps_per_s_ratios_by_turn"]),
            f"{row['cpu_ratio']:.3f}",
        )
    Console().print(table)


if __name__ == "__main__":
    app()
