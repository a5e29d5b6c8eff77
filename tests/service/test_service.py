"""The service as a user has it once `pairflow up` was said."""

import json
import subprocess
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from .user import User, words_of

_TINY = {"dataset": {"name": "nci", "max_rows": 300}}
_WORK = {
    "prefect: registration",
    "prefect: scheduler",
    "prefect: late runs",
    "prefect: events and automations",
    "mlflow: writes",
    "ray: writes and nodes",
    "reconciler: rounds",
    *(f"{name}: log" for name in ("prefect", "mlflow", "ray", "worker", "reconciler")),
}
_RUN_VARIABLE = "PREFECT__FLOW_RUN_ID"


def _long(seed: int, num_steps: int) -> dict[str, object]:
    """A pairing of many shards."""
    return {"dataset": {"name": "digits"}, "coupling": {"num_steps": num_steps, "seed": seed}, "shard_size": 40}


def _foreign_listeners(user: User) -> list[str]:
    """Listeners of the service's processes that `ss` shows on more than loopback."""
    pids = {each.pid for each in user.processes()}
    assert len(pids) > 8
    lines = subprocess.run(["ss", "-ltnpH"], capture_output=True, text=True, check=True).stdout.splitlines()
    ours = [line for line in lines if any(f"pid={pid}," in line for pid in pids)]
    assert len(ours) > 5
    return [line for line in ours if not line.split()[3].startswith(("127.0.0.1:", "[::ffff:127.0.0.1]:", "[::1]:"))]


def test_all_is_well_and_on_loopback(user: User) -> None:
    status = user.run("status", "--json")
    assert status.returncode == 0, status.stdout
    programs = {each["name"]: each for each in json.loads(status.stdout)["programs"]}
    assert set(programs) == {"prefect", "mlflow", "ray", "worker", "reconciler", "watch"}
    assert all(each["healthy"] for each in programs.values())
    work = json.loads(status.stdout)["work"]
    assert {each["name"] for each in work if each["healthy"] and each["reason"] is None} == _WORK
    assert programs["prefect"]["url"] == user.prefect
    assert _foreign_listeners(user) == []
    assert "worker 'this-machine' started" in user.run("logs", "worker", "--lines", "100000").stdout.lower()


def test_a_second_up_attaches(user: User) -> None:
    before = {each.pid for each in user.processes() if "supervisord" in words_of(each)}
    again = user.run("up")
    assert again.returncode == 0, again.stderr
    assert "already running" in again.stderr
    assert user.prefect in again.stdout
    assert {each.pid for each in user.processes() if "supervisord" in words_of(each)} == before


def test_another_home_is_told_who_has_the_port(user: User, tmp_path: Path) -> None:
    done = user.run("up", PAIRFLOW_HOME=str(tmp_path))
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert f"port {user.environment['PAIRFLOW_PREFECT_PORT']}" in done.stderr
    assert "PAIRFLOW_PREFECT_PORT" in done.stderr
    holder = user.process("prefect server start")
    assert f"process {holder.pid} (" in done.stderr


def test_deployment_that_is_registered(user: User) -> None:
    pair = user.deployment("pair")
    assert (pair["work_pool_name"], pair["work_queue_name"], pair["enforce_parameter_schema"]) == (
        "pairflow",
        "coupling",
        True,
    )
    assert pair["description"].startswith("Couple every training row")


def test_pair_by_the_api(user: User) -> None:
    run_id = user.start("pair", _TINY)
    run = user.wait_for_state(run_id, "Completed", "Failed", "Crashed")
    assert run["state_name"] == "Completed", run["state"]
    assert run["name"] == "pair nci T20 · 285 rows"
    assert {"pairflow", "coupling", "nci"} <= set(run["tags"])
    artifacts = user.ask("artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [run_id]}}})
    kinds = {each["type"]: each for each in artifacts}
    assert {"progress", "markdown"} <= set(kinds)
    assert f"({user.mlflow}/#/experiments/" in kinds["markdown"]["data"]
    # The last lines are sent as the process ends, after the run's state.
    user.wait_for(lambda: "1 of 1 shards to make, 285 rows" in user.log(run_id), timeout_s=30)
    assert set(user.jobs(run_id).values()) == {"SUCCEEDED"}

    # Asked for again it is found without a job; and another terminal of this home, by MLflow's server, begins no run.
    again = user.start("pair", _TINY)
    run = user.wait_for_state(again, "Completed", "Failed", "Crashed")
    assert "in the store already" in run["state"]["message"], run["state"]
    assert user.jobs(again) == {}
    done = user.run("pair", "--dataset", "nci", "--max-rows", 300, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["skipped"]
    assert f"/runs/{result['mlflow_run_id']}" in kinds["markdown"]["data"]
    assert user.ask("flow_runs/count", {"flow_runs": {"name": {"any_": ["pair nci T20 · 285 rows"]}}}) == 2


def test_cancelling_stops_the_job(user: User) -> None:
    run_id = user.start("pair", _long(seed=1, num_steps=60_000))
    user.wait_for(lambda: "RUNNING" in user.jobs(run_id).values(), timeout_s=240)
    user.set_state(run_id, "CANCELLING", "Cancelling")
    user.wait_for(lambda: set(user.jobs(run_id).values()) == {"STOPPED"}, timeout_s=120)
    user.wait_for_state(run_id, "Cancelled", timeout_s=120)


def test_suspending_stops_the_job_and_resuming_goes_on(user: User) -> None:
    earlier = set(user.records())
    run_id = user.start("pair", _long(seed=3, num_steps=6000))
    user.wait_for(lambda: len(set(user.records()) - earlier) >= 3, timeout_s=240)
    # What Prefect's UI sends for its button.
    until = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    details = {"pause_reschedule": True, "pause_timeout": until}
    state = {"type": "PAUSED", "name": "Suspended", "state_details": details}
    user.ask(f"flow_runs/{run_id}/set_state", {"state": state})
    user.wait_for(lambda: set(user.jobs(run_id).values()) == {"STOPPED"}, timeout_s=120)
    assert user.flow_run(run_id)["state_name"] == "Suspended"
    survived = {path: written for path, written in user.records().items() if path not in earlier}

    user.ask(f"flow_runs/{run_id}/resume", {})
    run = user.wait_for_state(run_id, "Completed", "Failed", "Crashed", timeout_s=480)
    assert run["state_name"] == "Completed", run["state"]
    assert sorted(user.jobs(run_id).values()) == ["STOPPED", "SUCCEEDED"]
    now = user.records()
    assert {path: now[path] for path in survived} == survived


def test_a_killed_run_crashes_and_goes_on_when_retried(user: User) -> None:
    earlier = set(user.records())
    run_id = user.start("pair", _long(seed=2, num_steps=6000))
    user.wait_for(lambda: len(set(user.records()) - earlier) >= 3, timeout_s=240)
    user.process("prefect.engine", **{_RUN_VARIABLE: run_id}).kill()
    state = user.wait_for_state(run_id, "Crashed", timeout_s=120)["state"]
    assert "SIGKILL" in state["message"]
    user.wait_for(lambda: not {"RUNNING", "PENDING"} & set(user.jobs(run_id).values()), timeout_s=120)
    survived = {path: written for path, written in user.records().items() if path not in earlier}
    time.sleep(10)  # Prefect reports a crash twice, and the second report would undo an earlier retry
    user.set_state(run_id, "SCHEDULED", "AwaitingRetry")
    run = user.wait_for_state(run_id, "Completed", "Failed", timeout_s=120)
    assert run["state_name"] == "Completed", run["state"]
    assert len(user.jobs(run_id)) == 2
    after = user.records()
    assert {path: after[path] for path in survived} == survived
    assert len(survived) < len(after) - len(earlier)
