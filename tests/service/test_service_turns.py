"""Runs that want the same: one coupling, of which one run makes it; one GPU, which one job holds."""

from typing import Any

import pytest

from .user import User

pytestmark = pytest.mark.timeout(1800)  # of a machine that is very busy

_PAIRING = {"dataset": {"name": "digits"}, "coupling": {"num_steps": 20_000, "seed": 22}, "shard_size": 40}
_TINY = {"architecture": "dit", "hidden_size": 16, "num_layers": 1, "num_heads": 2, "cond_size": 16}
_WAITS = "makes the same at this moment; this job waits"


def _training(seed: int) -> dict[str, Any]:
    """Far longer than the test."""
    training = {"num_steps": 1_000_000, "batch_size": 16, "seed": seed}
    return {"dataset": {"name": "digits", "max_rows": 100}, "method": "udlm", "model": _TINY, "training": training}


def test_a_coupling_is_made_by_one_run_and_found_by_the_others(user: User) -> None:
    earlier = set(user.records())
    runs = [user.start("pair", _PAIRING) for _ in range(3)]

    def waiting() -> list[str]:
        return [each for each in runs if _WAITS in user.log(each)]

    user.wait_for(lambda: len(waiting()) == 2, timeout_s=240, or_say=lambda: [user.log(each) for each in runs])
    others = waiting()
    (first,) = set(runs) - set(others)
    assert all(f"job pair-{first}-1 {_WAITS}" in user.log(each) for each in others)
    user.wait_for(lambda: len(set(user.records()) - earlier) >= 2, timeout_s=240)

    user.driver(first).kill()
    user.wait_for_state(first, "Failed", timeout_s=120)
    survived = {path: written for path, written in user.records().items() if path not in earlier}
    for each in others:
        assert user.wait_for_state(each, "Completed", "Failed", timeout_s=400)["state_name"] == "Completed"
    made = [each for each in others if "shards to make" in user.log(each)]
    (found,) = set(others) - set(made)
    assert len(made) == 1  # the lock did not outlive its holder, and went to one
    # Prefect has a run's last lines a moment after its state.
    user.wait_for(lambda: "nothing to do: these pairs are whole" in user.log(found), timeout_s=60)
    after = user.records()
    assert {path: after[path] for path in survived} == survived


def test_a_job_waits_for_its_gpu_and_says_so(user: User) -> None:
    first = user.start("train", _training(seed=1))
    user.wait_for(lambda: set(user.jobs(first).values()) == {"RUNNING"}, timeout_s=240)
    second = user.start("train", _training(seed=2))
    user.wait_for(lambda: "waits for 1 GPU(s), which other jobs hold" in user.log(second), timeout_s=240)
    assert set(user.jobs(second).values()) == {"PENDING"}
    assert user.flow_run(second)["state_name"] == "Running"
    user.set_state(first, "CANCELLING", "Cancelling")
    user.wait_for(lambda: "begins, after" in user.log(second), timeout_s=240)
    assert set(user.jobs(second).values()) == {"RUNNING"}
    assert set(user.jobs(first).values()) == {"STOPPED"}
    user.set_state(second, "CANCELLING", "Cancelling")
    user.wait_for(lambda: set(user.jobs(second).values()) == {"STOPPED"}, timeout_s=120)
    for each in (first, second):
        user.wait_for_state(each, "Cancelled", timeout_s=120)
