"""What people delete, pause and rename on Prefect's pages: `status` names it, and `up` puts back what it told Prefect.

The tests tell one story, in their order.
"""

import pytest

from .user import User

pytestmark = [pytest.mark.story, pytest.mark.timeout(1800)]  # of a machine that is very busy

_NAME = "prefect: registration"
_AUTOMATION = "pairflow: end runs that have fallen silent"
_TINY = {"dataset": {"name": "nci", "max_rows": 40}, "coupling": {"num_steps": 3}}


def _says(user: User, *words: str) -> None:
    user.wait_for_work(lambda work: all(each in (work.get(_NAME) or "") for each in words))


def _is_well(user: User) -> None:
    user.wait_for_work(lambda work: work.get(_NAME, "nobody watches") is None)


def _automation(user: User) -> list[str]:
    found = user.ask("automations/filter", {"automations": {"name": {"any_": [_AUTOMATION]}}})
    return [each["id"] for each in found]


def test_a_deployment_and_the_automation(user: User) -> None:
    queue = user.deployment("train")["work_queue_name"]
    user.tell("DELETE", f"deployments/{user.deployment('train')['id']}")
    (automation,) = _automation(user)
    user.tell("DELETE", f"automations/{automation}")
    _says(user, "deleted or changed: deployment train, automation", "`pairflow up` puts that right")
    assert user.run("status").returncode == 1
    up = user.run("up")
    assert up.returncode == 0, up.stderr
    assert "deployment train, automation" in up.stderr
    assert user.deployment("train")["work_queue_name"] == queue
    assert len(_automation(user)) == 1
    _is_well(user)


def test_a_queue(user: User) -> None:
    user.tell("DELETE", "work_pools/pairflow/queues/coupling")
    _says(user, "queue coupling")
    assert user.run("up").returncode == 0
    assert "coupling" in {each["name"] for each in user.ask("work_pools/pairflow/queues/filter", {})}
    _is_well(user)


def test_the_work_pool_with_all_its_queues(user: User) -> None:
    user.spoils("worker", "prefect", "reconciler")  # the worker asks for what is not there
    user.tell("DELETE", "work_pools/pairflow")
    _says(user, "queue coupling", "queue models")
    up = user.run("up")
    assert up.returncode == 0, up.stderr
    assert user.ask("work_pools/pairflow")["concurrency_limit"] == 4
    _is_well(user)
    run = user.wait_for_state(user.start("pair", _TINY), "Completed", "Failed", "Crashed", timeout_s=400)
    assert run["state_name"] == "Completed", run["state"]
    user.spoils("worker", "prefect", "reconciler")


def test_one_that_is_paused_stays_so_and_is_named(user: User) -> None:
    def pause(paused: bool) -> None:
        user.tell("PATCH", "work_pools/pairflow", {"is_paused": paused})

    pause(True)
    try:
        _says(user, "paused, or limited to no run at all: work pool pairflow")
        assert user.run("up").returncode == 0
        assert user.ask("work_pools/pairflow")["is_paused"]
    finally:
        pause(False)
    _is_well(user)
