"""The coupling by assignment on QM9: what larger blocks bring and cost, and scipy's solver on the same blocks.

    python benchmarks/assignment.py

Every block size runs in a process of its own, so that its peak memory is its own. scipy solves one block of each size
up to `--scipy-size`, in the same process as ours.
"""

import json
import resource
import subprocess
import sys
import time
from typing import Annotated, Any

import numpy as np
import typer
from machine import write_results
from rich.console import Console
from rich.table import Table

from pairflow import datasets
from pairflow.coupling import couple
from pairflow.spec import CouplingSpec, DatasetSpec, parse

_SIZES = (64, 256, 1024, 2048, 4096, 8192, 16_384)


def _one(dataset: str, size: int, threads: int, scipy_size: int) -> dict[str, Any]:
    """One block size: the whole training part, and one block by both solvers."""
    part = datasets.load(parse(DatasetSpec, {"name": dataset}), progress=False).part("train")
    rows, vocab_size = part.tokens, part.vocab_size
    couple(rows[:64], vocab_size=vocab_size, spec=CouplingSpec(kind="assignment", block_size=64))  # compiles
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    spec = CouplingSpec(kind="assignment", block_size=size)
    started = time.perf_counter()
    source = couple(rows, vocab_size=vocab_size, spec=spec, num_threads=threads)
    seconds = time.perf_counter() - started
    result = {
        "dataset": dataset,
        "rows": len(rows),
        "length": part.length,
        "vocab_size": vocab_size,
        "block_size": size,
        "threads": threads,
        "seconds": seconds,
        "mean_hamming": float((source != rows).sum(axis=1).mean()),
        "peak_mib_beyond_data": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024,
    }
    if size <= scipy_size:
        result |= _against_scipy(rows[:size], vocab_size)
    return result


def _against_scipy(rows: np.ndarray, vocab_size: int) -> dict[str, float]:
    from scipy.optimize import linear_sum_assignment

    from pairflow.coupling.optimal import most_matches

    sources = np.random.default_rng(0).integers(vocab_size, size=rows.shape)
    matches = np.stack([(sources == row).sum(axis=1) for row in rows]).astype(np.uint8)
    started = time.perf_counter()
    ours = most_matches(matches, rows.shape[1])[0]
    middle = time.perf_counter()
    row_numbers, theirs = linear_sum_assignment(matches, maximize=True)
    ended = time.perf_counter()
    totals = matches[row_numbers, theirs].sum(), matches[np.arange(len(rows)), ours].sum()
    assert totals[0] == totals[1], totals
    return {"block_seconds": middle - started, "block_seconds_scipy": ended - middle}


def main(
    dataset: Annotated[str, typer.Option(help="Registry name.")] = "qm9",
    sizes: Annotated[list[int] | None, typer.Option(help="Repeatable: rows a block.")] = None,
    threads: Annotated[int, typer.Option(help="Threads.")] = 2,
    scipy_size: Annotated[int, typer.Option(help="Largest block that scipy solves too.")] = 2048,
    one: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Prints a table and writes benchmarks/results/assignment.json."""
    if one is not None:
        print(json.dumps(_one(dataset, one, threads, scipy_size)))
        return
    results = []
    for size in sizes or _SIZES:
        command = [sys.executable, __file__, "--dataset", dataset, "--one", str(size), "--threads", str(threads)]
        command += ["--scipy-size", str(scipy_size)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        results.append(json.loads(done.stdout.splitlines()[-1]))
        print(results[-1], file=sys.stderr)
    table = Table("B", "seconds", "mean Hamming", "peak MiB", "a block, s", "scipy, s", title=dataset)
    for each in results:
        solvers = [f"{each[name]:.3f}" if name in each else "" for name in ("block_seconds", "block_seconds_scipy")]
        figures = [f"{each['seconds']:.1f}", f"{each['mean_hamming']:.2f}", f"{each['peak_mib_beyond_data']:.0f}"]
        table.add_row(f"{each['block_size']:,}", *figures, *solvers)
    Console().print(table)
    print(write_results("assignment", results))


if __name__ == "__main__":
    typer.run(main)
