"""What a person waits for at the service: `pairflow up`, a form's submission, cancel, suspend and resume, `down`.

    python -m benchmarks.waiting

From an empty home, on free ports, by the API that Prefect's pages speak to. Say what else the machine did meanwhile: on
one with other work these are that work's figures.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.machine import write_results
from tests.service.conftest import environment_of
from tests.service.user import User

_AT_WORK = ("RUNNING", "PENDING")
_SUSPENDED_S = 100  # longer than the silence after which the service takes a run for dead
_LONG = {"dataset": {"name": "nci"}, "coupling": {"num_steps": 60_000, "seed": 1}}
_PIPELINE = {"dataset": {"name": "digits"}}

_seconds: dict[str, float] = {}


@contextmanager
def _timed(what: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    _seconds[what] = time.perf_counter() - started


def _begun(person: User, name: str, parameters: dict[str, Any], jobs: int) -> str:
    """A run that is at work, with so many Ray jobs at the same time."""
    with _timed(f"{name}: submission to Running"):
        run_id = person.start(name, parameters)
        person.wait_for_state(run_id, "Running")
    person.wait_for(lambda: sum(each == "RUNNING" for each in person.jobs().values()) >= jobs, timeout_s=300)
    time.sleep(10)
    return run_id


def _idle(person: User) -> Callable[[], bool]:
    return lambda: not set(_AT_WORK) & set(person.jobs().values())


def _cancelled(person: User, run_id: str, what: str) -> None:
    with _timed(f"{what}: cancel to no job left"):
        with _timed(f"{what}: cancel to Cancelled"):
            person.set_state(run_id, "CANCELLING", "Cancelling")
            person.wait_for_state(run_id, "Cancelled", timeout_s=200)
        person.wait_for(_idle(person), timeout_s=200)


def _suspended_and_resumed(person: User, run_id: str) -> None:
    until = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    details = {"pause_reschedule": True, "pause_timeout": until}
    with _timed("pipeline: suspend to no job left"):
        state = {"type": "PAUSED", "name": "Suspended", "state_details": details}
        person.ask(f"flow_runs/{run_id}/set_state", {"state": state})
        person.wait_for(_idle(person), timeout_s=200)
    time.sleep(_SUSPENDED_S)
    if (found := person.flow_run(run_id)["state_name"]) != "Suspended":
        raise SystemExit(f"{_SUSPENDED_S} s after it was suspended the run is {found}")
    with _timed("pipeline: resume to Running"):
        person.ask(f"flow_runs/{run_id}/resume", {})
        person.wait_for_state(run_id, "Running")


def main() -> None:
    """Prints a table and writes benchmarks/results/waiting.json."""
    with tempfile.TemporaryDirectory(prefix="pairflow-waiting-", dir="/tmp") as folder:  # for Ray's sockets
        environment = environment_of(Path(folder))
        del environment["PREFECT_WORKER_QUERY_SECONDS"]  # as users have it
        person = User(environment)
        try:
            with _timed("up, empty home"):
                person.run("up", "--detach").check_returncode()
            _cancelled(person, _begun(person, "pair", _LONG, 1), "pair")
            run_id = _begun(person, "pipeline", _PIPELINE, 2)
            _suspended_and_resumed(person, run_id)
            person.wait_for(lambda: not _idle(person)(), timeout_s=300)
            time.sleep(10)
            _cancelled(person, run_id, "pipeline")
            with _timed("down"):
                person.run("down").check_returncode()
            with _timed("up, used home"):
                person.run("up", "--detach").check_returncode()
        finally:
            person.run("down")
    table = Table("what", "seconds")
    for what, seconds in _seconds.items():
        table.add_row(what, f"{seconds:.1f}")
    Console().print(table)
    print(write_results("waiting", [_seconds]))


if __name__ == "__main__":
    main()
