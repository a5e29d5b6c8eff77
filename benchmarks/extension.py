"""What `--extend` saves and what it costs: new rows coupled into earlier pairs, beside all rows coupled anew.

    python benchmarks/extension.py

The last rows of the training part play the new ones. The earlier rows are coupled without them, then with them, which
would be exact; new rows alone, and all, are coupled in turns for the time. Pairs cannot be compared one by one: a walk
draws points of the data by their rank, which more rows shift. So what is compared is how often the earlier rows'
sources keep their target's token, by position; another seed of the exact coupling, beside it, is what chance does.
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
    dataset: Annotated[list[str] | None, typer.Option(help="Repeatable: registry names.")] = None,
    new: Annotated[list[float] | None, typer.Option(help="Repeatable: percent of the rows that are new.")] = None,
    rows: Annotated[int, typer.Option(help="Rows of the training part that take part, evenly spread; 0: all.")] = 0,
    repeats: Annotated[int, typer.Option(help="Turns.")] = 3,
    threads: Annotated[int, typer.Option(help="Threads.")] = 2,
) -> None:
    """Prints a table and writes benchmarks/results/extension.json."""
    results: list[dict[str, Any]] = []
    for name in dataset or ["digits", "qm9"]:
        part = datasets.load(parse(DatasetSpec, {"name": name})).part("train")
        # Sorted files would make the last rows unlike the others.
        order = np.random.default_rng(0).permutation(len(part))[: rows or len(part)]
        tokens = part.tokens[order]
        for percent in new or [1.0, 10.0, 50.0]:
            results.append({"dataset": name, **_compare(tokens, part.vocab_size, percent, repeats, threads)})
    table = Table(
        "dataset", "new", "all, s", "new only, s", "ratio", "pairs", "mean Hamming", "mean |Δ|", "largest |Δ|"
    )
    for each in results:
        first = (
            each["dataset"],
            f"{each['new_percent']:g} %",
            f"{each['all_seconds']:.2f}",
            f"{each['new_seconds']:.2f}",
            f"{each['ratio']:.0f}",
        )
        for number, (name, figures) in enumerate(each["pairs"].items()):
            table.add_row(
                *(first if number == 0 else [""] * len(first)),
                name,
                f"{figures['mean_hamming']:.3f}",
                f"{figures['keep_rate_mean_difference']:.4f}",
                f"{figures['keep_rate_largest_difference']:.4f}",
            )
    Console().print(table)
    print(write_results("extension", results))


def _compare(tokens: np.ndarray, vocab_size: int, percent: float, repeats: int, threads: int) -> dict[str, Any]:
    support = np.asfortranarray(tokens)
    num_old = len(tokens) - max(1, round(len(tokens) * percent / 100))
    numbers = np.arange(len(tokens))

    def walk(rows: np.ndarray, over: np.ndarray, seed: int = 0) -> tuple[np.ndarray, float]:
        started = time.perf_counter()
        source = couple(
            tokens[rows],
            over,
            vocab_size=vocab_size,
            spec=CouplingSpec(seed=seed),
            sample_ids=rows,
            num_threads=threads,
        )
        return source, time.perf_counter() - started

    walk(numbers[:2], support)  # compiles
    earlier, _ = walk(numbers[:num_old], np.asfortranarray(tokens[:num_old]))
    other, _ = walk(numbers[:num_old], support, seed=1)
    all_seconds, new_seconds = [], []
    for _ in range(repeats):
        anew, seconds = walk(numbers, support)
        all_seconds.append(seconds)
        _, seconds = walk(numbers[num_old:], support)
        new_seconds.append(seconds)
    target = tokens[:num_old]
    exact = (anew[:num_old] == target).mean(axis=0)
    pairs = {}
    for name, source in (("exact", anew[:num_old]), ("exact, other seed", other), ("taken over", earlier)):
        same = source == target
        difference = np.abs(same.mean(axis=0) - exact)
        pairs[name] = {
            "mean_hamming": float((~same).sum(axis=1).mean()),
            "keep_rate_mean_difference": float(difference.mean()),
            "keep_rate_largest_difference": float(difference.max()),
        }
    return {
        "rows": len(tokens),
        "new_percent": percent,
        "all_seconds": float(np.median(all_seconds)),
        "new_seconds": float(np.median(new_seconds)),
        "ratio": float(np.median(all_seconds) / np.median(new_seconds)),
        "pairs": pairs,
        "threads": threads,
    }


if __name__ == "__main__":
    typer.run(main)
