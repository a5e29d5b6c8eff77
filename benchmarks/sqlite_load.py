"""Many runs at once on the two histories in SQLite: as `pairflow up` sets them up, and as they come.

    python benchmarks/sqlite_load.py            # about four minutes

Each client makes a run after another and does to it what a flow does: states, logs, heartbeats, tasks, artifacts; or,
with MLflow, batches of metrics. Counted are runs, refused requests, and "database is locked" in the server's log.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from machine import write_results

from flows.home.environment import prefect_environment
from flows.home.settings import Settings
from flows.service.programs import patient_sqlite

_CLIENTS, _SECONDS, _PATIENCE_S = 24, 25.0, 90.0
_Ask = Callable[[str, Any], Any]


def _one_of_prefect(ask: _Ask, kept: dict[str, Any]) -> None:
    run = ask("flow_runs/", {"flow_id": kept["flow"], "state": {"type": "PENDING"}})["id"]
    ask(f"flow_runs/{run}/set_state", {"state": {"type": "RUNNING"}})
    now = datetime.now(UTC).isoformat()
    ask("logs/", [{"name": "x", "level": 20, "message": "m", "timestamp": now, "flow_run_id": run}] * 5)
    resource = {"prefect.resource.id": f"prefect.flow-run.{run}"}
    beat = {"occurred": now, "event": "prefect.flow-run.heartbeat", "resource": resource, "payload": {}}
    ask("events", [beat | {"id": str(uuid4())} for _ in range(5)])
    made = ask("artifacts/", {"key": f"k{run[0]}", "type": "progress", "data": 1, "flow_run_id": run})
    assert made["id"]
    for _ in range(3):
        task = {"task_key": "t", "dynamic_key": str(uuid4()), "flow_run_id": run, "state": {"type": "PENDING"}}
        made = ask("task_runs/", task)
        ask(f"task_runs/{made['id']}/set_state", {"state": {"type": "COMPLETED"}})
    ask(f"flow_runs/{run}/set_state", {"state": {"type": "COMPLETED"}})


def _prefect_begins(ask: _Ask) -> dict[str, Any]:
    beat = "prefect.flow-run.heartbeat"
    trigger = {
        **{"type": "event", "posture": "Proactive", "threshold": 1, "within": 75, "after": [beat]},
        **{"expect": [beat, "prefect.flow-run.Completed"], "for_each": ["prefect.resource.id"]},
        "match": {"prefect.resource.id": ["prefect.flow-run.*"]},
    }
    ask("automations/", {"name": "x", "enabled": True, "trigger": trigger, "actions": [{"type": "do-nothing"}]})
    return {"flow": ask("flows/", {"name": "x"})["id"]}


def _one_of_mlflow(ask: _Ask, kept: dict[str, Any]) -> None:
    run = ask("runs/create", {"experiment_id": kept["experiment"]})["run"]["info"]["run_id"]
    for step in range(5):
        now = int(time.time() * 1000)
        metrics = [{"key": f"m{number}", "value": 1.0, "timestamp": now, "step": step} for number in range(20)]
        ask("runs/log-batch", {"run_id": run, "metrics": metrics})
    ask("runs/update", {"run_id": run, "status": "FINISHED"})


def _mlflow_begins(ask: _Ask) -> dict[str, Any]:
    return {"experiment": ask("experiments/create", {"name": "x"})["experiment_id"]}


def _load(api: str, begin: Callable[[_Ask], Any], one: Callable[[_Ask, Any], None]) -> dict[str, Any]:
    answers: Counter[str] = Counter()
    runs: list[float] = []

    def ask(path: str, body: Any) -> Any:
        request = urllib.request.Request(  # noqa: S310 - http
            f"{api}/{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=_PATIENCE_S) as answer:  # noqa: S310 - http
            answers["done"] += 1
            return json.loads(answer.read() or b"null")

    kept, end = begin(ask), time.monotonic() + _SECONDS

    def client() -> None:
        while (started := time.monotonic()) < end:
            try:
                one(ask, kept)
                runs.append(time.monotonic() - started)
            except urllib.error.HTTPError as error:
                answers[str(error.code)] += 1
            except OSError:
                answers[f"no answer in {_PATIENCE_S:.0f} s"] += 1

    began = time.monotonic()
    clients = [threading.Thread(target=client) for _ in range(_CLIENTS)]
    for each in clients:
        each.start()
    for each in clients:
        each.join()
    return {"runs": len(runs), "seconds": round(time.monotonic() - began, 1), "requests": dict(answers)}


def _measure(server: str, ours: bool, folder: Path) -> dict[str, Any]:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    at = ("--host", "127.0.0.1", "--port", str(port))
    environment = (
        os.environ | prefect_environment(Settings(home=folder)) | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    )
    if server == "prefect":
        words = ("flows.service.prefect" if ours else "prefect", "server", "start", *at)
        api, health, begin, one = "/api", "/api/health", _prefect_begins, _one_of_prefect
    else:
        file = folder / "mlflow.db"
        url = patient_sqlite(file) if ours else f"sqlite:///{file}"
        environment |= {"PAIRFLOW_HOME": str(folder), "PAIRFLOW_AUTH": "off"}
        words = ("flows.service.mlflow" if ours else "mlflow", "server", *at, "--workers", "1")
        words = (*words, "--backend-store-uri", url, "--no-serve-artifacts")
        words = (*words, "--default-artifact-root", (folder / "artifacts").as_uri())
        api, health, begin, one = "/api/2.0/mlflow", "/health", _mlflow_begins, _one_of_mlflow
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-m", *words], env=environment, stdout=log, stderr=log)
    try:
        url = f"http://127.0.0.1:{port}"
        _wait(f"{url}{health}")
        found = _load(f"{url}{api}", begin, one)
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:  # it stands still
            process.kill()
            process.wait(60)
    locked = (folder / "log").read_text(errors="replace").count("database is locked")
    return {"server": server, "set_up_by": "pairflow" if ours else "default", **found, "locked_in_log": locked}


def _wait(url: str) -> None:
    for _ in range(600):
        try:
            with urllib.request.urlopen(url, timeout=5):  # noqa: S310 - http
                return
        except OSError:
            time.sleep(0.3)
    raise SystemExit(f"nothing answers at {url}")


def main() -> None:
    """Measures both servers, ours and as they come, and writes results/sqlite_load.json."""
    results = []
    for server in ("prefect", "mlflow"):
        for ours in (True, False):
            with tempfile.TemporaryDirectory() as folder:
                results.append({"clients": _CLIENTS, **_measure(server, ours, Path(folder))})
            print(results[-1], flush=True)
    print(write_results("sqlite_load", results))


if __name__ == "__main__":
    main()
