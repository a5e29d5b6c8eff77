"""What a command without servers takes, from an empty home and from a used one, by kind of process, beside a commit.

    python benchmarks/cold_start.py --base COMMIT

`pairflow pair` is timed in a fresh process, the two codes in turns: once from a home that does not exist, then with
another seed from the home that this left. All processes that come of it are watched: when the first of a kind is seen
and the last is gone, in seconds after the command began, and what they take of the cores. Before that each code runs
once unmeasured, for the caches of bytecode and numba. Medians are shown.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer
from machine import ROOT, checked_out, write_results
from rich.console import Console
from rich.table import Table

_EVERY_S = 0.05
_KINDS = {
    "flows.command.app": "the command",
    "flows.home.held": "holders",
    "flows.jobs.": "the job's driver",
    "uvicorn": "Prefect's server",
    "flows.command.temporary_prefect": "Prefect's server",
    "ray::JobSupervisor": "Ray's supervisor of the job",
    "ray::": "Ray's workers and agents",
    "ray": "Ray's head",
}
"""What is in the command line of each kind of process; the first that fits."""


@dataclass
class Part:
    """Processes of one kind.

    Attributes:
        begins: seconds after the command began at which the first was seen.
        ends: at which the last was seen.
        cpu: seconds of a core that they took.
    """

    begins: float
    ends: float
    cpu: float


def timed(words: list[str], environment: dict[str, str], folder: Path) -> tuple[float, dict[str, Part]]:
    """Seconds of a command, and the parts that processes had in them."""
    began = time.perf_counter()
    command = psutil.Popen(words, env=environment, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    seen: dict[int, tuple[str, Part]] = {}
    while command.poll() is None:
        now = time.perf_counter() - began
        for each in _all_of(command):
            try:
                line, times = " ".join(each.cmdline()), each.cpu_times()
            except psutil.Error:
                continue
            kind, part = seen.get(each.pid, ("", Part(now, now, 0.0)))
            part.ends, part.cpu = now, times.user + times.system
            # A process may have another line later: Ray's workers get their names, and `sh` becomes the driver.
            found = next((kind for word, kind in _KINDS.items() if word in line), kind or "others")
            seen[each.pid] = found, part
        time.sleep(_EVERY_S)
    seconds = time.perf_counter() - began
    if command.returncode != 0:
        raise SystemExit(f"{words} ended with {command.returncode}")
    parts: dict[str, Part] = {}
    for kind, part in seen.values():
        whole = parts.setdefault(kind, Part(part.begins, part.ends, 0.0))
        whole.begins, whole.ends = min(whole.begins, part.begins), max(whole.ends, part.ends)
        whole.cpu += part.cpu
    return seconds, parts


def _all_of(command: psutil.Popen) -> list[psutil.Process]:
    try:
        return [command, *command.children(recursive=True)]
    except psutil.Error:
        return []


def main(
    base: Annotated[str, typer.Option(help="Commit to compare with.")],
    dataset: Annotated[str, typer.Option(help="That `pair` is asked for.")] = "nci",
    repeats: Annotated[int, typer.Option(help="Turns; medians are shown.")] = 5,
) -> None:
    """Prints tables and writes benchmarks/results/cold_start.json."""
    measured: dict[tuple[str, str], list[tuple[float, dict[str, Part]]]] = {}
    with tempfile.TemporaryDirectory(prefix="pairflow-cold-") as name, checked_out(base, Path(name) / "base") as other:
        codes = {"base": other, "now": ROOT}
        for turn in range(-1, repeats):
            for code, folder in codes.items():
                home = Path(name) / f"{code}-{turn}"
                others = {key: value for key, value in os.environ.items() if not key.startswith(("PREFECT_", "RAY_"))}
                environment = others | {"PYTHONPATH": str(folder), "PAIRFLOW_HOME": str(home)}
                environment.pop("PYTHONDONTWRITEBYTECODE", None)
                for state, seed in (("empty home", 1), ("used home", 2)):
                    words = ["-m", "flows.command.app", "pair", "--dataset", dataset, "--seed", str(seed)]
                    result = timed([sys.executable, *words], environment, folder)
                    if turn >= 0:
                        measured.setdefault((state, code), []).append(result)
    console = Console()
    results: list[dict[str, Any]] = []
    for (state, code), turns in measured.items():
        seconds = statistics.median(each for each, _ in turns)
        table = Table("processes", "begin, s", "end, s", "cores, s", title=f"{state}, {code}: {seconds:.1f} s")
        parts = {kind: _median([parts[kind] for _, parts in turns if kind in parts]) for kind in dict(turns[0][1])}
        for kind, part in sorted(parts.items(), key=lambda each: each[1].begins):
            table.add_row(kind, f"{part.begins:.1f}", f"{part.ends:.1f}", f"{part.cpu:.1f}")
        console.print(table)
        results.append(
            {
                "dataset": dataset,
                "state": state,
                "code": code,
                "seconds": [each for each, _ in turns],
                "parts": {kind: asdict(part) for kind, part in parts.items()},
            }
        )
    print(write_results("cold_start", [{"base": base}, *results]))


def _median(parts: list[Part]) -> Part:
    return Part(*(statistics.median(getattr(each, name) for each in parts) for name in ("begins", "ends", "cpu")))


if __name__ == "__main__":
    typer.run(main)
