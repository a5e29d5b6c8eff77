"""Schedules of `retrain` fire: one made over REST, one switched on as in Prefect's UI, one of a setting; and again
after `down` and `up`. The tests tell one story, in their order.

Where a run has only to start by itself and end, the test holds the lock of the model that it is about: it then ends as
Skipped, and says that somebody is at it.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from flows.home.locks import only_one

from .schedules import Schedule
from .user import User

pytestmark = [pytest.mark.story, pytest.mark.timeout(1800)]  # of a machine that is very busy

_EVERY_MINUTE = {"cron": "* * * * *", "timezone": "UTC"}


@pytest.fixture(scope="module", autouse=True)
def _nothing_is_left(user: User) -> Iterator[None]:
    yield
    for each in Schedule.of_people(user):
        each.remove()


def test_one_made_over_rest_fires(user: User, tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", np.random.default_rng(0).integers(5, size=(40, 6), dtype=np.uint8))
    soon = datetime.now(UTC) + timedelta(seconds=40)
    schedule = Schedule.make(
        user,
        {"interval": 86_400, "anchor_date": soon.isoformat(), "timezone": "UTC"},
        active=True,
        name="scheduled",
        dataset={"name": "tokens", "path": str(tmp_path), "vocab_size": 5},
        method="udlm",
        model={"architecture": "dit", "hidden_size": 16, "num_layers": 1, "num_heads": 2, "cond_size": 8},
        training={"num_steps": 1, "batch_size": 16, "warmup_steps": 0},
        steps=1,
        trials=2,
        num_samples=8,
    )
    schedule.is_scheduled()
    run = schedule.fires()
    assert run["state_name"] == "Completed", run["state"]
    assert run["auto_scheduled"]
    assert run["name"] == "retrain scheduled udlm demo"
    assert "first champion of pairflow-scheduled" in run["state"]["message"]
    started, expected = (datetime.fromisoformat(run[name]) for name in ("start_time", "expected_start_time"))
    assert abs(expected - soon) < timedelta(seconds=1)
    assert started > expected - timedelta(seconds=1)  # Prefect counts whole seconds of waiting


def test_one_switched_on_in_the_ui_fires(user: User) -> None:
    weekly = Schedule.of_setting(user, "digits")
    assert weekly.runs() == []
    weekly.switch(True)
    weekly.is_scheduled()
    times = [datetime.fromisoformat(each["expected_start_time"]) for each in weekly.runs("Scheduled")]
    assert {(each.strftime("%A"), each.hour, each.minute) for each in times} == {("Sunday", 3, 0)}

    with only_one(user.home / "locks", "retrain-digits", "the test"):
        often = Schedule.make(user, _EVERY_MINUTE, active=False)
        assert often.runs() == []
        often.switch(True)
        run = often.fires()
        often.end()
    assert run["state_name"] == "Skipped", run["state"]
    assert "the test is at it" in run["state"]["message"]


def test_those_of_a_setting_and_of_before_fire_after_down_and_up(user: User) -> None:
    hourly = {"schedule": {"interval": 3600, "timezone": "UTC"}, "active": False}
    others = ("prepare", "study")
    for flow in others:  # of which no setting makes one
        user.ask(f"deployments/{user.deployment(flow)['id']}/schedules", [hourly])
    assert user.run("down").returncode == 0
    with only_one(user.home / "locks", "retrain-nci", "the test"):
        up = user.run("up", "--detach", PAIRFLOW_RETRAIN_DATASETS="nci", PAIRFLOW_RETRAIN_CRON="* * * * *")
        assert up.returncode == 0, up.stderr
        setting = Schedule.of_setting(user, "nci")
        run = setting.fires()
        setting.end()
    assert run["state_name"] == "Skipped", run["state"]
    assert "the test is at it" in run["state"]["message"]
    assert run["auto_scheduled"]

    weekly = Schedule.of_setting(user, "digits")  # on before `down`, and on still
    weekly.is_scheduled()
    weekly.end()
    (daily,) = Schedule.of_people(user, active=True)  # the one made over REST
    daily.is_scheduled()
    for flow in others:
        (kept,) = user.deployment(flow)["schedules"]
        assert (kept["schedule"]["interval"], kept["active"]) == (3600, False)
        user.tell("DELETE", f"deployments/{user.deployment(flow)['id']}/schedules/{kept['id']}", None)


def test_one_of_a_setting_that_is_deleted_is_named_and_put_back(user: User) -> None:
    with only_one(user.home / "locks", "retrain-nci", "the test"):
        Schedule.of_setting(user, "nci").remove()
        says = "somebody deleted or changed: schedule of retraining nci; `pairflow up` puts that right"
        name = "prefect: registration"
        user.wait_for_work(lambda work: says in (work.get(name) or ""))
        up = user.run("up")
        assert up.returncode == 0, up.stderr
        assert "schedule of retraining nci" in up.stderr
        Schedule.of_setting(user, "nci").end()
    user.wait_for_work(lambda work: work.get(name, "nobody watches") is None)
