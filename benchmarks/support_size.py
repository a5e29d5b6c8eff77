"""What the posterior over a random subset of the support does to the pairs of QM9, beside the full support.

    python benchmarks/support_size.py

The same rows are coupled against the whole training part with two seeds (what chance alone does) and against subsets.
"""

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


def main(
    dataset: Annotated[str, typer.Option(help="Registry name.")] = "qm9",
    rows: Annotated[int, typer.Option(help="Rows coupled.")] = 20_000,
    sizes: Annotated[list[int] | None, typer.Option(help="Repeatable: support sizes.")] = None,
    threads: Annotated[int, typer.Option(help="Threads.")] = 2,
) -> None:
    """Prints a table and writes benchmarks/results/support_size.json."""
    part = datasets.load(parse(DatasetSpec, {"name": dataset})).part("train")
    support = np.asfortranarray(part.tokens)
    chosen = np.linspace(0, len(part) - 1, min(rows, len(part))).astype(np.int64)
    target = part.tokens[chosen]

    def kept(spec: CouplingSpec) -> tuple[np.ndarray, float]:
        started = time.perf_counter()
        source = couple(target, support, vocab_size=part.vocab_size, spec=spec, sample_ids=chosen, num_threads=threads)
        return source == target, (time.perf_counter() - started) / len(chosen) * 1e3

    couple(target[:2], support, vocab_size=part.vocab_size, spec=CouplingSpec(), num_threads=1)  # compiles
    full, _ = kept(CouplingSpec())
    cases: list[tuple[str, CouplingSpec]] = [("all, other seed", CouplingSpec(seed=1)), ("all", CouplingSpec())]
    for size in sorted(sizes or (1_000, 4_000, 16_000, 64_000), reverse=True):
        cases.append((f"{size:,}", CouplingSpec(support_size=size)))
    results: list[dict[str, Any]] = []
    for name, spec in cases:
        same, cost = kept(spec)
        by_position = same.mean(axis=0) - full.mean(axis=0)
        results.append(
            {
                "support": name,
                "support_size": spec.support_size or len(part),
                "rows": len(chosen),
                "mean_hamming": float((~same).sum(axis=1).mean()),
                "keep_rate": float(same.mean()),
                "keep_rate_mean_difference": float(np.abs(by_position).mean()),
                "keep_rate_largest_difference": float(np.abs(by_position).max()),
                "keep_rate_correlation": float(np.corrcoef(same.mean(axis=0), full.mean(axis=0))[0, 1]),
                "ms_per_row": cost,
            }
        )
    table = Table("support", "mean Hamming", "keep rate", "by position: mean |Δ|", "largest |Δ|", "r", "ms/row")
    for each in results:
        table.add_row(
            each["support"],
            f"{each['mean_hamming']:.3f}",
            f"{each['keep_rate']:.4f}",
            f"{each['keep_rate_mean_difference']:.4f}",
            f"{each['keep_rate_largest_difference']:.4f}",
            f"{each['keep_rate_correlation']:.4f}",
            f"{each['ms_per_row']:.3f}",
        )
    Console().print(table)
    print(write_results("support_size", results))


if __name__ == "__main__":
    typer.run(main)
