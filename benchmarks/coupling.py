"""The cpu engine against the dense equations, side by side on the same rows, threads and machine.

    python benchmarks/coupling.py --dataset qm9 --rows 4000 --dense-rows 64

Both engines couple rows against the whole training part. They take turns, `--repeats` times, and medians are compared:
a noisy neighbour then slows both. Compilation and one-hot tables are outside the clock for both.
"""

import time
from typing import Annotated

import numpy as np
import torch
import typer
from machine import write_results
from rich.console import Console
from rich.table import Table

from pairflow import datasets
from pairflow.coupling import couple
from pairflow.coupling.dense import DenseSupport, walk
from pairflow.spec import CouplingSpec, DatasetSpec, parse

_DENSE_BYTES = 8 * 2**30  # one-hot tables beyond this are not measured (CIFAR-10's would take 31 GB)


def main(
    dataset: Annotated[list[str], typer.Option(help="Repeatable: registry names.")],
    rows: Annotated[int, typer.Option(help="Rows coupled by the cpu engine a repeat; 0: all.")] = 4000,
    dense_rows: Annotated[int, typer.Option(help="Rows coupled by the dense engine a repeat; 0: not measured.")] = 64,
    repeats: Annotated[int, typer.Option(help="Turns.")] = 3,
    threads: Annotated[int, typer.Option(help="Threads of both engines.")] = 2,
    num_steps: Annotated[int, typer.Option(help="T.")] = 20,
) -> None:
    """Prints a table and writes benchmarks/results/coupling.json."""
    torch.set_num_threads(threads)
    spec = CouplingSpec(num_steps=num_steps)
    results = []
    for name in dataset:
        part = datasets.load(parse(DatasetSpec, {"name": name})).part("train")
        num_rows = min(rows or len(part), len(part))
        # evenly spread, so that sorted files do not favour one engine
        chosen = np.linspace(0, len(part) - 1, num_rows).astype(np.int64)
        few = chosen[np.linspace(0, num_rows - 1, min(dense_rows, num_rows)).astype(np.int64)]
        support = np.asfortranarray(part.tokens)
        couple(support[:2], support, vocab_size=part.vocab_size, spec=spec, num_threads=1)  # compiles
        # float32, as a GPU implementation would; float64 is what the oracle uses and is slower
        fits = 4 * part.tokens.size * part.vocab_size <= _DENSE_BYTES
        dense = DenseSupport(support, part.vocab_size, torch.float32) if dense_rows and fits else None
        cpu_seconds, dense_seconds = [], []
        for _ in range(repeats):
            started = time.perf_counter()
            couple(
                part.tokens[chosen],
                support,
                vocab_size=part.vocab_size,
                spec=spec,
                sample_ids=chosen,
                num_threads=threads,
            )
            cpu_seconds.append((time.perf_counter() - started) / num_rows)
            if dense is not None:
                started = time.perf_counter()
                walk(part.tokens[few], dense, spec=spec, sample_ids=few.astype(np.uint64))
                dense_seconds.append((time.perf_counter() - started) / len(few))
        results.append(
            {
                "dataset": name,
                "support_size": len(part),
                "length": part.length,
                "vocab_size": part.vocab_size,
                "num_steps": num_steps,
                "threads": threads,
                "rows": num_rows,
                "dense_rows": len(few) if dense else 0,
                "cpu_ms_per_row": float(np.median(cpu_seconds)) * 1e3,
                "dense_ms_per_row": float(np.median(dense_seconds)) * 1e3 if dense else None,
                "ratio": float(np.median(dense_seconds) / np.median(cpu_seconds)) if dense else None,
                "whole_set_seconds": float(np.median(cpu_seconds)) * len(part),
                "whole_set_measured": num_rows == len(part),
            }
        )
    table = Table("dataset", "M", "D", "K", "cpu ms/row", "dense ms/row", "ratio", "whole set, s")
    for row in results:
        whole = f"{row['whole_set_seconds']:.1f}" + ("" if row["whole_set_measured"] else " (projected)")
        table.add_row(
            *(str(row[key]) for key in ("dataset", "support_size", "length", "vocab_size")),
            f"{row['cpu_ms_per_row']:.3f}",
            f"{row['dense_ms_per_row']:.1f}" if row["ratio"] else "not measured",
            f"{row['ratio']:.0f}" if row["ratio"] else "not measured",
            whole,
        )
    Console().print(table)
    print(write_results("coupling", results))


if __name__ == "__main__":
    typer.run(main)
