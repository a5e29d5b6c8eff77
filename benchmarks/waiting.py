"""What a person waits for: the demo; and at the service `up`, a submission, cancel, suspend and resume, `down`.

    python -m benchmarks.waiting --base COMMIT

From empty homes, on free ports, by the API that Prefect's pages speak to: first with the code of an earlier commit,
then with this one's, both in the environment of this one. Say what else the machine did meanwhile: on one with other
work these are that work's figures.
"""

import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.machine import checked_out, write_results
from tests.service.conftest import environment_of
from tests.service.user import User

_SUSPENDED_S = 100  # longer than the silence after which the service takes a run for dead
_LONG = {"dataset": {"name": "nci"}, "coupling": {"num_steps": 60_000, "seed": 1}}
_PIPELINE = {"dataset": {"name": "digits"}}
_DEMO = ("pipeline", "--dataset", "digits", "--preset", "demo")  # as `make demo` says it
# What tests set on their machine, and users do not.
_OF_TESTS = (
    "PREFECT_WORKER_QUERY_SECONDS",
    "PAIRFLOW_THREADS_PER_JOB",
    "PAIRFLOW_OBJECT_STORE_MB",
    "RAY_OVERRIDE_RESOURCES",
)


class Waiting:
    """One person with an empty home, and what was waited for, in seconds."""

    def __init__(self, home: Path, code: Path) -> None:
        environment = environment_of(home) | {"PYTHONPATH": str(code)}
        for name in _OF_TESTS:
            del environment[name]
        self.person, self.seconds = User(environment), dict[str, float]()
        scripts = tomllib.loads((code / "pyproject.toml").read_text())["project"]["scripts"]
        module, _, function = scripts["pairflow"].partition(":")
        self._code, self._entry = code, f"from {module} import {function}; {function}()"

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Takes down how long the block took."""
        started = time.perf_counter()
        yield
        self.seconds[what] = round(time.perf_counter() - started, 2)

    def say(self, what: str, *words: str) -> None:
        """A command."""
        command = [sys.executable, "-c", self._entry, *words]
        with self.timed(what):
            subprocess.run(command, cwd=self._code, env=self.person.environment, stdout=subprocess.DEVNULL, check=True)

    def begin(self, name: str, parameters: dict[str, Any], jobs: int) -> str:
        """A run that is at work, with so many Ray jobs at the same time."""
        with self.timed(f"{name}: submission to Running"):
            run_id = self.person.start(name, parameters)
            self.person.wait_for_state(run_id, "Running")
        self.person.wait_for(lambda: self.at_work() >= jobs, timeout_s=300)
        time.sleep(10)
        return run_id

    def at_work(self) -> int:
        """Jobs that run, or are about to."""
        return sum(each in ("RUNNING", "PENDING") for each in self.person.jobs().values())

    def cancel(self, run_id: str, what: str) -> None:
        """As the page's button does."""
        with self.timed(f"{what}: cancel to no job left"):
            with self.timed(f"{what}: cancel to Cancelled"):
                self.person.set_state(run_id, "CANCELLING", "Cancelling")
                self.person.wait_for_state(run_id, "Cancelled", timeout_s=200)
            self.person.wait_for(lambda: self.at_work() == 0, timeout_s=200)

    def suspend_and_resume(self, run_id: str) -> None:
        """As the page's buttons do, with a long while between."""
        until = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
        details = {"pause_reschedule": True, "pause_timeout": until}
        with self.timed("pipeline: suspend to no job left"):
            state = {"type": "PAUSED", "name": "Suspended", "state_details": details}
            self.person.ask(f"flow_runs/{run_id}/set_state", {"state": state})
            self.person.wait_for(lambda: self.at_work() == 0, timeout_s=200)
        time.sleep(_SUSPENDED_S)
        if (found := self.person.flow_run(run_id)["state_name"]) != "Suspended":
            raise SystemExit(f"{_SUSPENDED_S} s after it was suspended the run is {found}")
        with self.timed("pipeline: resume to Running"):
            self.person.ask(f"flow_runs/{run_id}/resume", {})
            self.person.wait_for_state(run_id, "Running")
        self.person.wait_for(lambda: self.at_work() > 0, timeout_s=300)
        time.sleep(10)


def _waited(homes: Path, code: Path, *, suspends: bool) -> dict[str, float]:
    demo = Waiting(homes / "demo", code)
    demo.say("demo, after installation", *_DEMO)
    found = Waiting(homes / "service", code)
    found.seconds |= demo.seconds
    try:
        found.say("up, empty home", "up", "--detach")
        found.cancel(found.begin("pair", _LONG, 1), "pair")
        if suspends:
            run_id = found.begin("pipeline", _PIPELINE, 2)
            found.suspend_and_resume(run_id)
            found.cancel(run_id, "pipeline")
        found.say("down", "down")
        found.say("up, used home", "up", "--detach")
    finally:
        found.say("down, idle", "down")
    return found.seconds


def main(
    base: Annotated[str, typer.Option(help="Commit to compare with, in what it could do.")],
) -> None:
    """Prints a table and writes benchmarks/results/waiting.json."""
    with (
        tempfile.TemporaryDirectory(prefix="pairflow-waiting-", dir="/tmp") as folder,  # for Ray's sockets
        checked_out(base, Path(folder) / "base") as earlier,
        checked_out("HEAD", Path(folder) / "here") as here,  # fresh too: nothing of it is compiled yet
    ):
        before = _waited(Path(folder) / "0", earlier, suspends=False)
        now = _waited(Path(folder) / "1", here, suspends=True)
    table = Table("what", f"{base}, s", "here, s")
    for what, seconds in now.items():
        table.add_row(what, f"{before[what]:.1f}" if what in before else "–", f"{seconds:.1f}")
    Console().print(table)
    print(write_results("waiting", [{"base": base, "before": before, "here": now}]))


if __name__ == "__main__":
    typer.run(main)
