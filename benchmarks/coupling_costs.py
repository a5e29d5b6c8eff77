"""What a row's source costs against M, D, K and T: each at several sizes, the others fixed, with the exponent.

    python benchmarks/coupling_costs.py

Data: clusters of rows that share four fifths of their tokens, so that walks meet neighbours as in real data. A size is
measured in turns with all others, so that a noisy neighbour slows all of them; medians are compared.
"""

import time
from typing import Annotated, Any

import numpy as np
import typer
from machine import RESULTS, write_results
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, ScalarFormatter
from rich.console import Console
from rich.progress import track
from rich.table import Table

from pairflow.coupling import couple
from pairflow.spec import CouplingSpec

_BASE = {"M": 32_000, "D": 64, "K": 40, "T": 20}
_SIZES = {
    "M": (4_000, 8_000, 16_000, 32_000, 64_000, 128_000),
    "D": (16, 32, 64, 128, 256, 512),
    "K": (2, 8, 40, 200, 1000),
    "T": (5, 10, 20, 40, 80),
}


def main(
    rows: Annotated[int, typer.Option(help="Rows coupled a measurement.")] = 256,
    repeats: Annotated[int, typer.Option(help="Turns.")] = 3,
    threads: Annotated[int, typer.Option(help="Threads.")] = 2,
) -> None:
    """Prints a table; writes benchmarks/results/coupling_costs.json and .png."""
    cases = [(axis, size, _BASE | {axis: size}) for axis, sizes in _SIZES.items() for size in sizes]
    seconds: list[list[float]] = [[] for _ in cases]
    for turn in range(repeats + 1):
        for found, (_, _, case) in zip(
            seconds, track(cases, f"turn {turn} of {repeats}" if turn else "compiling"), strict=True
        ):
            support = clustered(case["M"], case["D"], case["K"])
            spec = CouplingSpec(num_steps=case["T"])
            started = time.perf_counter()
            couple(support[:rows], support, vocab_size=case["K"], spec=spec, num_threads=threads)
            if turn:
                found.append((time.perf_counter() - started) / rows)
    results: list[dict[str, Any]] = []
    table = Table("varied", "exponent", *[f"size {k + 1}" for k in range(max(map(len, _SIZES.values())))])
    for axis, sizes in _SIZES.items():
        cost = [float(np.median(s)) * 1e3 for s, (name, _, _) in zip(seconds, cases, strict=True) if name == axis]
        exponent = float(np.polyfit(np.log(sizes), np.log(cost), 1)[0])
        last = float(np.log(cost[-1] / cost[-2]) / np.log(sizes[-1] / sizes[-2]))
        results.append(
            {
                "varied": axis,
                "fixed": {name: value for name, value in _BASE.items() if name != axis},
                "sizes": list(sizes),
                "ms_per_row": cost,
                "exponent": exponent,
                "exponent_of_last_two": last,
                "threads": threads,
            }
        )
        shown = [f"{size:,}: {each:.3f} ms" for size, each in zip(sizes, cost, strict=True)]
        table.add_row(axis, f"{exponent:.2f} (last two {last:.2f})", *shown)
    Console().print(table)
    draw(results)
    print(write_results("coupling_costs", results))


def clustered(num_rows: int, length: int, vocab_size: int) -> np.ndarray:
    """[M, D] tokens in clusters of 100 rows, each with a fifth of its tokens drawn anew; column by column."""
    random = np.random.default_rng(0)
    dtype = np.min_scalar_type(vocab_size - 1)
    centres = random.integers(vocab_size, size=(num_rows // 100, length))
    tokens = centres[random.integers(len(centres), size=num_rows)]
    anew = random.random(tokens.shape) < 0.2
    return np.asfortranarray(np.where(anew, random.integers(vocab_size, size=tokens.shape), tokens).astype(dtype))


def draw(results: list[dict[str, Any]]) -> None:
    """One panel a quantity, both axes logarithmic."""
    figure = Figure(figsize=(12, 3.4), layout="constrained")
    axes = figure.subplots(1, len(results), sharey=True)
    for axis, result in zip(axes, results, strict=True):
        axis.loglog(result["sizes"], result["ms_per_row"], marker="o", color="#0072B2")
        axis.set_xticks(result["sizes"], [f"{size:,}" for size in result["sizes"]], rotation=45)
        axis.minorticks_off()
        axis.set_xlabel(result["varied"])
        axis.set_title(f"exponent {result['exponent']:.2f}", fontsize="medium")
        axis.grid(alpha=0.3, which="both")
    axes[0].yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes[0].yaxis.set_major_formatter(ScalarFormatter())
    axes[0].set_ylabel("ms a row")
    figure.savefig(RESULTS / "coupling_costs.png", dpi=120)


if __name__ == "__main__":
    typer.run(main)
