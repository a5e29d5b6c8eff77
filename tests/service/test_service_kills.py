"""One run through kill -9 of everything that it needs, one after the other: true states, and nothing made twice.

The tests tell one story, in their order. While nobody has heard of one run for 75 seconds, another one is killed.
"""

import contextlib
import re
import time
from pathlib import Path

import psutil
import pytest

from flows.cluster.protocol import JOB_URL_VARIABLE

from .user import User

pytestmark = [
    pytest.mark.story,
    pytest.mark.timeout(1800),  # of a machine that is very busy
]

_RUN_VARIABLE = "PREFECT__FLOW_RUN_ID"


def _pairing(seed: int, num_steps: int, sources_per_target: int = 1) -> dict[str, object]:
    """Forty-one shards for each source of a target."""
    coupling = {"num_steps": num_steps, "seed": seed, "sources_per_target": sources_per_target}
    return {"dataset": {"name": "digits"}, "coupling": coupling, "shard_size": 40}


class _Pairing:
    """A pairing that is killed, retried and killed again, with an eye on its shards."""

    def __init__(self, user: User, seed: int, num_steps: int) -> None:
        self.user = user
        self._others = set(user.records())
        self._seen: dict[str, int] = {}
        self.id = user.start("pair", _pairing(seed, num_steps))

    def shards(self) -> dict[str, int]:
        """Its shards' records, with when they were written; what was there is there, as it was."""
        now = {path: written for path, written in self.user.records().items() if path not in self._others}
        assert {path: now.get(path) for path in self._seen} == self._seen
        self._seen = now
        return now

    def wait_for_shards(self, number: int) -> None:
        """So many more."""
        wanted = len(self.shards()) + number
        self.user.wait_for(
            lambda: len(self.shards()) >= wanted, timeout_s=240, or_say=lambda: self.user.flow_run(self.id)["state"]
        )

    def fails(self) -> str:
        """Why it has ended, as its page says."""
        message = str(self.user.wait_for_state(self.id, "Failed", timeout_s=240)["state"]["message"])
        assert "Traceback" not in message
        return message

    def retry(self) -> None:
        self.user.wait_for(lambda: not self.user.find_processes("", **{_RUN_VARIABLE: self.id}), timeout_s=60)
        self.user.set_state(self.id, "SCHEDULED", "AwaitingRetry")
        self.user.wait_for_state(self.id, "Running", timeout_s=240)


@pytest.fixture(scope="module")
def silent(user: User) -> str:
    """A run whose process and worker were killed together, in the middle of its job."""
    store = str(user.home / "another store")
    # Half an hour's work of an idle core: nothing of it must end before it is stopped.
    endless = _pairing(seed=11, num_steps=60_000, sources_per_target=30)
    run_id = user.start("pair", endless | {"num_workers": 1, "store": store})
    user.wait_for(lambda: user.find_processes("ray::_couple_shard"), timeout_s=120)
    for each in user.find_processes("ray::_couple_shard"):
        each.suspend()  # it would take a core from all others until the run is found to be silent
    for each in (user.process("prefect worker start"), user.process("prefect.engine", **{_RUN_VARIABLE: run_id})):
        each.kill()
    time.sleep(2)
    assert user.flow_run(run_id)["state_name"] == "Running"  # nobody is left to say otherwise
    assert set(user.jobs(run_id).values()) == {"RUNNING"}
    return run_id


def test_a_silent_run_crashes_and_its_job_is_stopped(user: User, silent: str) -> None:
    state = user.wait_for_state(silent, "Crashed", timeout_s=300)["state"]
    assert "Nothing was heard" in state["message"]
    user.wait_for(lambda: set(user.jobs(silent).values()) == {"STOPPED"}, timeout_s=120, or_say=user.jobs)
    assert f"stopped Ray job pair-{silent}" in user.run("logs", "reconciler", "--lines", "1000").stdout


@pytest.fixture(scope="module")
def killed(user: User, silent: str) -> _Pairing:
    """Another one, that the worker takes up which the supervisor has started anew."""
    return _Pairing(user, seed=12, num_steps=8000)


def test_a_killed_ray_worker_costs_one_shard(user: User, killed: _Pairing) -> None:
    killed.wait_for_shards(2)
    workers = user.find_processes("ray::_couple_shard")
    next(each for each in workers if killed.id in each.environ().get(JOB_URL_VARIABLE, "")).kill()
    killed.wait_for_shards(3)
    assert user.flow_run(killed.id)["state_name"] == "Running"
    assert set(user.jobs(killed.id).values()) == {"RUNNING"}


def test_a_killed_driver_fails_the_run(user: User, killed: _Pairing) -> None:
    user.driver(killed.id).kill()
    assert "left neither a result nor an error" in killed.fails()
    assert set(user.jobs(killed.id).values()) == {"FAILED"}
    killed.retry()
    killed.wait_for_shards(1)
    assert sorted(user.jobs(killed.id).values()) == ["FAILED", "RUNNING"]


def _kill_ray(user: User, killed: _Pairing, *words: str) -> None:
    """Kills processes of Ray, and waits for what must follow."""
    user.spoils("ray")
    driver, agents = user.driver(killed.id), user.find_processes("ray::DashboardAgent")
    assert len(agents) == 1
    for each in [user.process(name) for name in words]:
        each.kill()
    # The head that the supervisor starts does not know the job; a busy machine may start it too late to be asked.
    assert re.search(
        "does not know job .* any more|has not answered about job .* what is finished is kept", killed.fails()
    )
    user.wait_for(lambda: not driver.is_running(), timeout_s=60)
    user.wait_until_well()
    assert not agents[0].is_running()
    assert user.jobs(killed.id) == {}  # of the head that is there now
    killed.retry()
    killed.wait_for_shards(1)


def test_a_killed_raylet_fails_the_run(user: User, killed: _Pairing) -> None:
    _kill_ray(user, killed, "raylet/raylet ")


def test_a_killed_head_fails_the_run(user: User, killed: _Pairing) -> None:
    """With the process that watches over it, so that nothing of it ends in order."""
    _kill_ray(user, killed, "ray.scripts.scripts start", "gcs/gcs_server ")


def test_all_is_killed_and_up_resumes_what_was_at_work(user: User, killed: _Pairing) -> None:
    runs = user.ask("flow_runs/count", {})
    for each in user.processes():
        with contextlib.suppress(psutil.NoSuchProcess):
            each.kill()
    before = killed.shards()
    assert user.run("status").returncode == 1
    again = user.run("up", "--detach")
    assert again.returncode == 0, again.stderr
    assert "resumed run 'pair digits" in again.stderr
    assert again.stderr.count("resumed run") == 1  # and none that had ended
    assert user.ask("flow_runs/count", {}) == runs
    run = user.wait_for_state(killed.id, "Completed", "Failed", "Crashed", timeout_s=400)
    assert run["state_name"] == "Completed", run["state"]
    states = [each["name"] for each in user.ask(f"flow_run_states/?flow_run_id={killed.id}")]
    told = [name for name in states if name not in ("Pending", "Submitting")]
    assert told[-4:] == ["Crashed", "AwaitingRetry", "Running", "Completed"]
    after = killed.shards()
    assert len(before) < len(after)
    (pairs,) = {str(Path(path).parents[1]) for path in after}
    verified = user.run("verify", pairs)
    assert verified.returncode == 0, verified.stderr
