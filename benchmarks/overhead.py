"""What the service adds to a pairing: seconds from a REST call to the first shard, and seconds beside `couple()`.

    PAIRFLOW_DATA_DIR=DIR python benchmarks/overhead.py

In a home of its own, on free ports, `pairflow up` is timed until it is ready, and its idle memory is read. Then 50 rows
are coupled by the REST API, cold (nothing has run since `up`) and warm: that is milliseconds of work, so these runs are
all fixed cost, and their first shard begins where it is written. The same is asked for again, and found. (What commands
take that find everything done is measured by `again.py`.) A long pairing is cancelled while it works. Last, all
of the dataset is coupled by the REST API, and by `couple()` in one process with as many threads as there are cores, in
turns; both read the data. What the service takes longer, beyond the fixed cost, is given in per cent of `couple()`;
for that both are counted from the run's start, as how long it waits for the worker's next look is a matter of luck.
"""

import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterable
from datetime import datetime
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer
from machine import write_results
from rich.console import Console
from rich.table import Table

from flows.home.token import access_token, password_headers
from flows.service.remains import processes_of

_POLL_S = 0.5
_IDLE_S = 60
_DIRECT = """
import json, os, sys, time
from pairflow import datasets
from pairflow.coupling import couple
from pairflow.spec import CouplingSpec, DatasetSpec, parse
started = time.perf_counter()
part = datasets.load(parse(DatasetSpec, json.loads(sys.argv[1])), progress=False).part("train")
read = time.perf_counter()
spec = parse(CouplingSpec, json.loads(sys.argv[2]))
couple(part.tokens, vocab_size=part.vocab_size, spec=spec, num_threads=os.cpu_count())
print(json.dumps({"rows": len(part), "seconds": time.perf_counter() - started, "reading": read - started}))
"""


class Service:
    """`pairflow up` in a folder that goes when this does."""

    def __init__(self, home: Path) -> None:
        self.home = home
        sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
        ports = [str(each.getsockname()[1]) for each in sockets]
        for each in sockets:
            each.close()
        names = ("PAIRFLOW_PREFECT_PORT", "PAIRFLOW_MLFLOW_PORT", "PAIRFLOW_RAY_PORT")
        self.environment = os.environ | dict(zip(names, ports, strict=True)) | {"PAIRFLOW_HOME": str(home)}
        self.prefect = f"http://127.0.0.1:{ports[0]}/api"
        self._headers = {"Content-Type": "application/json"} | password_headers(access_token(home))

    def command(self, *arguments: str) -> float:
        """Runs `pairflow ...`; seconds."""
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "flows.command.app", *arguments], env=self.environment, check=True)
        return time.perf_counter() - started

    def memory(self) -> int:
        """Bytes of all its processes; pages that several share are counted once (PSS)."""
        return sum(each.memory_full_info().pss for each in processes_of(self.home) if each.is_running())

    def ask(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """An answer of Prefect's API; asked again where its database is busy, as its own client does."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.prefect}/{path}", data, self._headers)  # noqa: S310 - http on loopback
        while True:
            try:
                with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310
                    return json.load(response)
            except urllib.error.HTTPError as error:
                if error.code != HTTPStatus.SERVICE_UNAVAILABLE:
                    raise
                time.sleep(_POLL_S)

    def pair(self, parameters: dict[str, Any]) -> dict[str, float]:
        """Couples by the REST API: seconds after the call at which things had happened."""
        earlier = self._records()
        deployment = self.ask("deployments/name/pair/pair")["id"]
        called = time.time()
        body = {"parameters": {"parameters": parameters}}
        run = self.ask(f"deployments/{deployment}/create_flow_run", body)["id"]
        while (state := self.ask(f"flow_runs/{run}")["state"])["type"] not in ("COMPLETED", "FAILED", "CRASHED"):
            time.sleep(_POLL_S)
        if state["type"] != "COMPLETED":
            raise SystemExit(f"the run did not complete: {state['message']}")
        written = sorted(at for path, at in self._records().items() if path not in earlier)
        states = {each["name"]: each["timestamp"] for each in self.ask(f"flow_run_states/?flow_run_id={run}")}
        after = {name: datetime.fromisoformat(at).timestamp() - called for name, at in states.items()}
        times = {"running": after["Running"], "completed": after["Completed"]}
        if written:  # nothing is where all was there already
            times |= {"first_shard_written": written[0] - called, "last_shard_written": written[-1] - called}
        return times

    def cancel(self) -> dict[str, float]:
        """Cancels a pairing at work: seconds until nothing of its job runs, and until the run says Cancelled."""
        earlier = self._records()
        long = {"dataset": {"name": "digits"}, "coupling": {"num_steps": 60_000, "sources_per_target": 100}}
        deployment = self.ask("deployments/name/pair/pair")["id"]
        body = {"parameters": {"parameters": long | {"shard_size": 40}}}
        run = self.ask(f"deployments/{deployment}/create_flow_run", body)["id"]
        while len(self._records()) == len(earlier):
            time.sleep(_POLL_S)
        called = time.perf_counter()
        self.ask(f"flow_runs/{run}/set_state", {"state": {"type": "CANCELLING", "name": "Cancelling"}})
        while self._works():
            time.sleep(0.1)
        stopped = time.perf_counter() - called
        while self.ask(f"flow_runs/{run}")["state"]["type"] != "CANCELLED":
            time.sleep(_POLL_S)
        return {"job_stopped": stopped, "cancelled": time.perf_counter() - called}

    def _works(self) -> bool:
        """Whether a job or one of its tasks runs."""
        for each in processes_of(self.home):
            with contextlib.suppress(psutil.Error):
                line = " ".join(each.cmdline())
                if "-m flows.jobs." in line or "ray::_couple_shard" in line:
                    return True
        return False

    def _records(self) -> dict[str, float]:
        return {str(path): path.stat().st_mtime for path in self.home.glob("store/pairs/*/_records/[0-9]*.json")}


def direct(dataset: dict[str, Any], coupling: dict[str, Any]) -> dict[str, float]:
    """`couple()` in a process of its own: rows, seconds with the reading of the data, and of that alone."""
    command = [sys.executable, "-c", _DIRECT, json.dumps(dataset), json.dumps(coupling)]
    told: dict[str, float] = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout)
    return told


def main(
    dataset: Annotated[str, typer.Option(help="Registry name.")] = "qm9",
    max_rows: Annotated[int, typer.Option(help="Rows of it; 0: all.")] = 0,
    num_steps: Annotated[int, typer.Option(help="Steps of the coupling.")] = 20,
    repeats: Annotated[int, typer.Option(help="Turns, and warm runs; medians are compared.")] = 3,
    idle_seconds: Annotated[int, typer.Option(help="Wait before memory is read.")] = _IDLE_S,
) -> None:
    """Prints tables and writes benchmarks/results/overhead.json."""
    data: dict[str, Any] = {"name": dataset} | ({"max_rows": max_rows} if max_rows else {})
    cores = os.cpu_count() or 1
    # A shard a core, so that the start of every task's process is in the fixed cost, as it is in that of all rows.
    tiny = {"dataset": {"name": "nci", "max_rows": 50}, "shard_size": -(-50 // (2 * cores))}
    with tempfile.TemporaryDirectory(prefix="pairflow-overhead-", dir=Path.cwd()) as folder:
        service = Service(Path(folder) / "home")
        try:
            first_start = service.command("up", "--detach")
            service.command("down")
            ready = service.command("up", "--detach")
            time.sleep(idle_seconds)
            memory = service.memory()
            cold, *warm = (service.pair(tiny | {"coupling": {"seed": seed}}) for seed in range(1 + repeats))
            found = [service.pair(tiny | {"coupling": {"seed": seed}}) for seed in range(repeats)]
            cancelled = [service.cancel() for _ in range(repeats)]
            direct(data, {"num_steps": num_steps, "seed": 0})  # fills the file cache, and numba's
            turns = []
            for seed in range(1, repeats + 1):
                coupling = {"num_steps": num_steps, "seed": seed}
                turns.append((service.pair({"dataset": data, "coupling": coupling}), direct(data, coupling)))
        finally:
            service.command("down")
    served, alone = (
        _median(map(_from_start, (each for each, _ in turns))),
        _median(each["seconds"] for _, each in turns),
    )
    fixed = _median(map(_from_start, warm))
    result: dict[str, Any] = {
        "first_start_seconds": first_start,
        "ready_seconds": ready,
        "idle_bytes": memory,
        "cold": cold,
        "warm": warm,
        "found": found,
        "cancelled": cancelled,
        "dataset": data,
        "num_steps": num_steps,
        "rows": turns[0][1]["rows"],
        "completed_seconds": _median(each["completed"] for each, _ in turns),
        "fixed_completed_seconds": _median(each["completed"] for each in warm),
        "served_seconds": served,
        "direct_seconds": alone,
        "fixed_seconds": fixed,
        "added_seconds": served - alone,
        "overhead_beyond_fixed": (served - fixed) / alone - 1,
        "turns": turns,
    }
    _show(result)
    print(write_results("overhead", [result]))


def _median(values: Iterable[float]) -> float:
    return statistics.median(values)


def _from_start(times: dict[str, float]) -> float:
    """Seconds of a run from its start to its end."""
    return times["completed"] - times["running"]


def _show(result: dict[str, Any]) -> None:
    console = Console()
    up = Table("first start, s", "ready, s", "idle memory, GB", title="pairflow up")
    up.add_row(
        f"{result['first_start_seconds']:.1f}", f"{result['ready_seconds']:.1f}", f"{result['idle_bytes'] / 1e9:.2f}"
    )
    console.print(up)
    calls = Table("50 rows", "running", "first shard written", "completed", title="seconds after the REST call")
    for name, each in (
        ("cold", result["cold"]),
        *(("warm", each) for each in result["warm"]),
        *(("found", each) for each in result["found"]),
    ):
        shown = (each.get(what) for what in ("running", "first_shard_written", "completed"))
        calls.add_row(name, *("–" if at is None else f"{at:.1f}" for at in shown))
    console.print(calls)
    cancelled = Table("job stopped", "run cancelled", title="seconds after a pairing at work is cancelled")
    for each in result["cancelled"]:
        cancelled.add_row(*(f"{each[what]:.1f}" for what in ("job_stopped", "cancelled")))
    console.print(cancelled)
    added = Table(
        *("rows", "by the service, s", "couple(), s", "added, s", "of it fixed, s", "beyond that"),
        title="seconds from the run's start",
    )
    added.add_row(
        f"{result['rows']:,}",
        *(f"{result[name]:.1f}" for name in ("served_seconds", "direct_seconds", "added_seconds", "fixed_seconds")),
        f"{result['overhead_beyond_fixed']:+.1%}",
    )
    console.print(added)


if __name__ == "__main__":
    typer.run(main)
