"""The reader of pairs beside its peers: batches of 1,024 shuffled rows of the same pairs, in one run.

    python -m venv /tmp/peers && /tmp/peers/bin/pip install --group peers   # pip 25.1 or later
    python benchmarks/reading.py --peers /tmp/peers/bin/python

Pairs are seeded uniform tokens of QM9's sizes (32 of 43). Each reader has a process of its own (reading_contenders.py),
in which it is imported and opened once before the clock starts. What a peer must write first is not on the clock.

- pairs/s: rows handed out over the seconds from nothing to the epoch's end; of slow readers, to the end of 5 s.
- later: the same of a second epoch of the same reader, where the first one ended in time.
- per CPU second: the same over the processor time of the process and its workers.
- memory: the most that process and workers took together (PSS), less what they take when idle.
- seconds to the first batch, and to the batch after one in the middle of an epoch, from a saved state; and whether that
  is the very batch that came next.

A peer that takes workers has none, and two, and the better of the two is kept. benchmarks/store.py has the same
reader by format and size of shards.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from machine import write_results
from rich.console import Console
from rich.table import Table
from store_pairs import commit, header_of, write

import storage

LENGTH, VOCAB_SIZE, SHARD_SIZE = 32, 43, 16_384
_OURS = ("numpy memmap", "PairReader resident", "PairReader streamed", "fit streamed")
_PEERS = ("mosaicml-streaming", "litdata", "datasets")
_CONTENDERS = Path(__file__).with_name("reading_contenders.py")


def main(
    peers: Annotated[Path | None, typer.Option(help="Python of an environment with the group `peers`.")] = None,
    rows: Annotated[int, typer.Option(help="Pairs.")] = 262_144,
    repeats: Annotated[int, typer.Option(help="Turns; medians are reported.")] = 3,
    folder: Annotated[Path | None, typer.Option(help="Where pairs are, or are written; kept.")] = None,
    prepare: Annotated[bool, typer.Option(help="Only write what the readers read, into --folder.")] = False,
) -> None:
    """Prints a table and writes benchmarks/results/reading.json."""
    root = Path(tempfile.mkdtemp(prefix="pairflow-reading-")) if folder is None else folder
    try:
        _make_pairs(root, rows)
        names = [*_OURS, *(_PEERS if peers else ())]
        if prepare:
            for name in names:
                _run(name, root, -1, peers)
            return
        turns: dict[tuple[str, int], list[dict[str, Any]]] = {
            (name, workers): [] for name in names for workers in ((0, 2) if name in _PEERS else (0,))
        }
        for _ in range(repeats):
            for (name, workers), each in turns.items():
                each.append(_run(name, root, workers, peers))
    finally:
        if folder is None:
            shutil.rmtree(root)
    results = [
        _best([_median(name, workers, turns[name, workers]) for workers in (0, 2) if (name, workers) in turns])
        for name in names
    ]
    _show(results)
    print(write_results("reading", results))


def _make_pairs(root: Path, rows: int) -> None:
    """Writes the pairs as numpy's files and as a coupling, if they are not there."""
    if (root / "source.npy").exists():
        return
    root.mkdir(exist_ok=True)
    target, source = np.random.default_rng(0).integers(VOCAB_SIZE, size=(2, rows, LENGTH), dtype=np.uint8)
    arrays = {"target": target, "source": source, "sample_id": np.arange(rows)}
    header = header_of("seeded", arrays, VOCAB_SIZE, "zarr", SHARD_SIZE)
    write(root / "store", header, arrays)
    commit(storage.pairs_url(root / "store", header.fingerprint, "zarr"), header)
    for name in ("target", "source"):
        np.save(root / f"{name}.npy", arrays[name])


def _run(name: str, root: Path, workers: int, peers: Path | None) -> dict[str, Any]:
    python = str(peers) if name in _PEERS else sys.executable
    # -P: benchmarks/streaming.py is no peer
    command = [python, "-P", "-W", "ignore", str(_CONTENDERS), name, str(root), str(workers)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name}: {done.stderr}")
    found = dict(json.loads(done.stdout.splitlines()[-1]))
    print(name, workers, found, flush=True)
    return found


def _median(name: str, workers: int, turns: list[dict[str, Any]]) -> dict[str, Any]:
    """The turns' medians; all whole epochs must have seen the same tokens."""
    row: dict[str, Any] = {"reader": name, "workers": workers}
    for key in (
        "pairs_per_s",
        "later_pairs_per_s",
        "pairs_per_cpu_s",
        "memory_mib",
        "idle_mib",
        "seconds_to_first",
        "seconds_to_resume",
    ):
        if key in turns[0]:
            row[key] = float(np.median([turn[key] for turn in turns]))
    row["rows"] = turns[0]["rows"]
    row["total"] = turns[0]["total"]
    row["resumes_exactly"] = all(turn.get("resumes_exactly", False) for turn in turns)
    return row


def _best(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return max(rows, key=lambda row: row["pairs_per_s"])


def _show(results: list[dict[str, Any]]) -> None:
    table = Table(
        "reader",
        "workers",
        "pairs/s",
        "later",
        "per CPU s",
        "memory MiB",
        "first batch s",
        "resumed s",
        "the next batch",
    )
    for row in results:
        table.add_row(
            row["reader"],
            str(row["workers"]),
            f"{row['pairs_per_s']:,.0f}",
            f"{row['later_pairs_per_s']:,.0f}" if "later_pairs_per_s" in row else "-",
            f"{row['pairs_per_cpu_s']:,.0f}",
            f"{row['memory_mib']:,.1f}",
            f"{row['seconds_to_first']:.3f}",
            f"{row['seconds_to_resume']:.3f}" if "seconds_to_resume" in row else "-",
            "yes" if row["resumes_exactly"] else "no",
        )
    Console(width=140).print(table)


if __name__ == "__main__":
    typer.run(main)
