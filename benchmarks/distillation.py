"""The Gaussian-to-uniform operator of DCD: how long its table takes, and how far it is from 10^7 draws.

    python benchmarks/distillation.py

The estimate draws the largest of K − 1 normal variables by its distribution function, so K = 50,000 costs what K = 2
does; it is off by its standard error, and the table should be within a few of them.
"""

import time
from typing import Annotated

import numpy as np
import typer
from machine import write_results
from rich.console import Console
from rich.table import Table
from scipy.special import ndtri

from pairflow.distillation.operator import GaussianOperator

_RATIOS = (0.5, 1.0, 2.0, 4.0)  # α̃/σ̃
_BATCH = 10**6


def main(
    vocab_size: Annotated[list[int] | None, typer.Option(help="Repeatable: K.")] = None,
    draws: Annotated[int, typer.Option(help="Draws an estimate, a multiple of a million.")] = 10**7,
    seed: Annotated[int, typer.Option(help="Of the draws.")] = 0,
) -> None:
    """Prints a table and writes benchmarks/results/distillation.json."""
    results = []
    for K in vocab_size or [2, 43, 256, 50_000]:
        started = time.perf_counter()
        operator = GaussianOperator(K)
        seconds = time.perf_counter() - started
        rng = np.random.default_rng([seed, K])
        wins = np.zeros(len(_RATIOS))
        for _ in range(draws // _BATCH):
            margin = ndtri(rng.random(_BATCH) ** (1 / (K - 1))) - rng.standard_normal(_BATCH)
            wins += [np.count_nonzero(margin < ratio) for ratio in _RATIOS]
        share = wins / draws
        estimate = (K * share - 1) / (K - 1)
        error = K / (K - 1) * np.sqrt(share * (1 - share) / draws)
        kappa = operator.kappa(np.array(_RATIOS) / np.hypot(1, _RATIOS))
        for ratio, exact, drawn, deviation in zip(_RATIOS, kappa, estimate, error, strict=True):
            results.append(
                {
                    "vocab_size": K,
                    "ratio": ratio,
                    "table_seconds": seconds,
                    "kappa": float(exact),
                    "estimate": float(drawn),
                    "standard_error": float(deviation),
                    "standard_errors_apart": float((drawn - exact) / deviation),
                    "draws": draws,
                }
            )
    table = Table("K", "α̃/σ̃", "table, ms", "κ", "estimate", "standard error", "apart")
    for row in results:
        table.add_row(
            f"{row['vocab_size']:,}",
            f"{row['ratio']}",
            f"{row['table_seconds'] * 1e3:.0f}",
            f"{row['kappa']:.7f}",
            f"{row['estimate']:.7f}",
            f"{row['standard_error']:.1e}",
            f"{row['standard_errors_apart']:+.2f}",
        )
    Console().print(table)
    print(write_results("distillation", results))


if __name__ == "__main__":
    typer.run(main)
