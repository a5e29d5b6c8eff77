"""Servers that live and do not work: each is broken for real, and `pairflow status` says which, and what that means."""

import json
import sqlite3
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from .conftest import environment_of
from .user import User

pytestmark = [pytest.mark.story, pytest.mark.timeout(1800)]  # of a machine that is very busy

_EVENTS = "prefect: events and automations"

_WHAT_OFF_MEANS = "Every user of this machine, and web pages in your browser, can read and change the histories"


@pytest.fixture(scope="module")
def unwell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[User]:
    """Somebody whose Prefect neither looks for late runs nor evaluates automations, and who lets everybody in."""
    off = {"PREFECT_SERVER_SERVICES_LATE_RUNS_ENABLED": "false", "PREFECT_SERVER_SERVICES_TRIGGERS_ENABLED": "false"}
    home = tmp_path_factory.mktemp("unwell")
    home.chmod(0o755)
    person = User(environment_of(home) | off | {"PAIRFLOW_AUTH": "off"})
    try:
        up = person.run("up", "--detach")
        assert up.returncode == 0, up.stderr
        assert _WHAT_OFF_MEANS in up.stdout
        assert "AUTH_STRING" not in up.stdout
        yield person
    finally:
        person.run("down")


@pytest.fixture(scope="module")
def database(unwell: User) -> Iterator[sqlite3.Connection]:
    """Prefect's."""
    with sqlite3.connect(unwell.home / "prefect" / "prefect.db", timeout=60) as connection:
        yield connection
    connection.close()


def _fails(database: sqlite3.Connection, table: str, when: str = "1") -> None:
    """Nothing can be added to a table any more."""
    database.execute(
        f"CREATE TRIGGER broken_{table} BEFORE INSERT ON {table} WHEN {when} "
        "BEGIN SELECT RAISE(ABORT, 'broken by a test'); END"
    )
    database.commit()


def _until(person: User, name: str, words: str | None, timeout_s: float = 400) -> None:
    """Waits until status says this of a thing."""

    def said(work: dict[str, str | None]) -> bool:
        reason = work.get(name, "nobody watches")
        return reason is None if words is None else words in (reason or "")

    person.wait_for_work(said, timeout_s=timeout_s)


def test_without_a_token(unwell: User) -> None:
    for address in (f"{unwell.prefect}/api/admin/version", f"{unwell.mlflow}/version"):
        with urllib.request.urlopen(address, timeout=60) as answer:  # noqa: S310 - http
            assert answer.status == 200
    assert unwell.home.stat().st_mode & 0o777 == 0o755
    assert _WHAT_OFF_MEANS in unwell.run("status", PAIRFLOW_AUTH="on").stdout  # it is the servers that are asked
    assert json.loads(unwell.run("status", "--json").stdout)["auth"] == "off"


def test_each_is_said(unwell: User, database: sqlite3.Connection) -> None:
    _fails(database, "flow_run", "NEW.auto_scheduled")
    every_day = {"schedule": {"cron": "0 3 * * *", "timezone": "UTC"}, "active": True}
    unwell.ask(f"deployments/{unwell.deployment('pair')['id']}/schedules", [every_day])
    # Of no deployment, so that no worker takes it.
    flow_id = unwell.ask("flows/filter", {"limit": 1})[0]["id"]
    overdue = (datetime.now(UTC) - timedelta(minutes=5)).isoformat()
    state = {"type": "SCHEDULED", "name": "Scheduled", "state_details": {"scheduled_time": overdue}}
    unwell.ask("flow_runs/", {"flow_id": flow_id, "state": state})
    writer = sqlite3.connect(unwell.home / "mlflow" / "mlflow.db", isolation_level=None, timeout=60)
    writer.execute("BEGIN IMMEDIATE")
    reconciler = unwell.process("-m flows.service.reconciler")
    raylet = unwell.process("raylet/raylet ")
    reconciler.suspend()
    raylet.suspend()
    try:
        _until(unwell, "prefect: scheduler", "the schedules of pair are on, and no runs are made")
        _until(unwell, "prefect: log", "broken by a test")
        _until(unwell, "prefect: late runs", "1 run(s) are 60 s over their time")
        _until(unwell, _EVENTS, "an automation that was due has not acted")
        _until(unwell, "mlflow: writes", "no answer that can be used")
        _until(unwell, "reconciler: rounds", "its last round is long ago")
        _until(unwell, "ray: writes and nodes", "no node of the cluster lives")
        status = unwell.run("status")
        assert status.returncode == 1
        assert "not well: prefect: scheduler: the schedules of pair are on" in status.stdout
        # The servers answer all the while, which was all that was looked at before.
        assert unwell.ask("ready") is not None
    finally:
        for each in (reconciler, raylet):
            if each.is_running():
                each.resume()
        writer.rollback()
        writer.close()


def test_what_works_again_is_well_again(unwell: User, database: sqlite3.Connection) -> None:
    database.execute("DROP TRIGGER broken_flow_run")
    database.commit()
    for name in ("mlflow: writes", "reconciler: rounds", "ray: writes and nodes", "prefect: scheduler"):
        _until(unwell, name, None)


def test_events_that_are_not_stored(unwell: User, database: sqlite3.Connection) -> None:
    _fails(database, "events")
    _until(unwell, _EVENTS, "an event that Prefect has taken is not stored")


def test_nobody_watches(unwell: User) -> None:
    watch = unwell.process("-m flows.service.watch")
    watch.suspend()
    try:
        unwell.wait_for_work(lambda work: work == {}, timeout_s=200)
        status = unwell.run("status")
        assert status.returncode == 1
        assert any("watch" in line and " no " in line for line in status.stdout.splitlines())
    finally:
        watch.resume()
