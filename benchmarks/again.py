"""What a command takes where all of it is done already, beside an earlier commit in the same run.

    python benchmarks/again.py --base COMMIT

The earlier commit is checked out into a folder of its own. Either code has a home of its own, without servers: first
`pair` is timed from that empty home, and a small pipeline and a study are run. Then every command is asked once more,
the two codes in turns, each in a fresh process; its `--json` must be the first one's but for `seconds` and `skipped`.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer
from machine import ROOT, checked_out, write_results
from rich.console import Console
from rich.table import Table

_SMALL = ("training.num_steps=20", "training.batch_size=16", "model.hidden_size=16")
_SCORED = ("evaluation.steps=[1,2]", "evaluation.num_samples=32", "evaluation.num_trials=1")


@dataclass
class Code:
    """One commit's code, with a home of its own."""

    name: str
    folder: Path
    home: Path
    seconds: dict[str, list[float]] = field(default_factory=dict)
    said: dict[str, Any] = field(default_factory=dict)

    def ask(self, called: str, words: list[str]) -> None:
        """Runs a command in a fresh process, and notes how long it took and what it came to."""
        own = {"PYTHONPATH": str(self.folder), "PAIRFLOW_HOME": str(self.home)}
        others = {name: value for name, value in os.environ.items() if name not in ("PREFECT_API_URL", "RAY_ADDRESS")}
        started = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "flows.command.app", *words, "--json", "--quiet"],
            env=others | own,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        self.seconds.setdefault(called, []).append(time.perf_counter() - started)
        answer = json.loads(done.stdout.splitlines()[-1])
        first = self.said.setdefault(words[0], answer)
        if _alike(first) != _alike(answer):
            raise SystemExit(f"{self.name}: {called} says something else than the first time")


def _alike(value: Any) -> Any:
    """A document without what tells one time from another; the base's flow runs are one a time."""
    if isinstance(value, list):
        return [_alike(each) for each in value]
    if not isinstance(value, dict):
        return value
    own = ("seconds", "skipped", "prefect_run_id")
    return {name: _alike(each) for name, each in value.items() if name not in own}


def main(
    base: Annotated[str, typer.Option(help="Commit to compare with.")],
    dataset: Annotated[str, typer.Option(help="That `pair` is asked for.")] = "nci",
    small: Annotated[str, typer.Option(help="Dataset of the small pipeline.")] = "digits",
    repeats: Annotated[int, typer.Option(help="How often each is asked again; medians are compared.")] = 3,
) -> None:
    """Prints a table and writes benchmarks/results/again.json."""
    data, settings = ["--dataset", small, "--max-rows", "200"], [f"--set={each}" for each in (*_SMALL, *_SCORED)]
    of_training = [f"--set={each}" for each in _SMALL]
    pair = ["pair", "--dataset", dataset]
    asked = {
        "pair": pair,
        "train": ["train", *data, "--method", "pairflow", *of_training],
        "evaluate": ["evaluate", *data, "--methods", "udlm,pairflow,assigned", *settings],
        "pipeline": ["pipeline", *data, *settings],
        "study": ["study", *data, "--methods", "udlm,pairflow,assigned", *settings],
    }
    with (
        tempfile.TemporaryDirectory(prefix="pairflow-again-", dir="/tmp") as folder,  # for Ray's sockets
        checked_out(base, Path(folder) / "base") as earlier,
    ):
        codes = [Code("base", earlier, Path(folder) / "h0"), Code("here", ROOT, Path(folder) / "h1")]
        for code in codes:
            code.ask("pair, first", pair)
            code.ask("pipeline, first", asked["pipeline"])
            code.ask("study, first", asked["study"])  # of models that the pipeline has trained
        for _ in range(repeats):
            for name, words in asked.items():
                for code in codes:
                    code.ask(f"{name}, again", words)
    result = {
        "base": subprocess.run(
            ["git", "-C", ROOT, "rev-parse", base], stdout=subprocess.PIPE, text=True, check=True
        ).stdout.strip(),
        "dataset": dataset,
        "small": small,
        **{code.name: code.seconds for code in codes},
    }
    table = Table("command", "base, s", "here, s", "base / here", title="seconds of a fresh process")
    for name in codes[0].seconds:
        before, now = (statistics.median(code.seconds[name]) for code in codes)
        table.add_row(name, f"{before:.1f}", f"{now:.2f}", f"{before / now:.1f}")
    Console().print(table)
    print(write_results("again", [result]))


if __name__ == "__main__":
    typer.run(main)
