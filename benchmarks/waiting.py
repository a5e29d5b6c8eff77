"""What a person waits for at the service: `pairflow up`, a submission, cancel, suspend and resume, `down`.

    python -m benchmarks.waiting --base COMMIT

From an empty home, on free ports, by the API that Prefect's pages speak to: first with the code of an earlier commit,
then with this one's. Say what else the machine did meanwhile: on one with other work these are that work's figures.
"""

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.machine import ROOT, checked_out, write_results
from tests.service.conftest import environment_of
from tests.service.user import User

_SUSPENDED_S = 100  # longer than the silence after which the service takes a run for dead
_LONG = {"dataset": {"name": "nci"}, "coupling": {"num_steps": 60_000, "seed": 1}}
_PIPELINE = {"dataset": {"name": "digits"}}


class Waiting:
    """One person with an empty home, and what was waited for, in seconds."""

    def __init__(self, home: Path, code: Path) -> None:
        environment = environment_of(home) | {"PYTHONPATH": str(code)}
        del environment["PREFECT_WORKER_QUERY_SECONDS"]  # as users have it
        self.person, self.seconds = User(environment), dict[str, float]()

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Takes down how long the block took."""
        started = time.perf_counter()
        yield
        self.seconds[what] = round(time.perf_counter() - started, 2)

    def say(self, what: str, *words: str) -> None:
        """A command."""
        with self.timed(what):
            self.person.run(*words).check_returncode()

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


def _waited(home: Path, code: Path, *, suspends: bool) -> dict[str, float]:
    found = Waiting(home, code)
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
        found.person.run("down")
    return found.seconds


def main(
    base: Annotated[str, typer.Option(help="Commit to compare with, in what it could do.")],
) -> None:
    """Prints a table and writes benchmarks/results/waiting.json."""
    with (
        tempfile.TemporaryDirectory(prefix="pairflow-waiting-", dir="/tmp") as folder,  # for Ray's sockets
        checked_out(base, Path(folder) / "base") as earlier,
    ):
        before = _waited(Path(folder) / "h0", earlier, suspends=False)
        now = _waited(Path(folder) / "h1", ROOT, suspends=True)
    table = Table("what", f"{base}, s", "here, s")
    for what, seconds in now.items():
        table.add_row(what, f"{before[what]:.1f}" if what in before else "–", f"{seconds:.1f}")
    Console().print(table)
    print(write_results("waiting", [{"base": base, "before": before, "here": now}]))


if __name__ == "__main__":
    typer.run(main)
