"""Stages at the same time: their order, their share of the machine, and what happens to the others of a failure."""

import functools
import threading
import time
from inspect import signature

import pytest
from prefect import Task

from flows.stages.side_by_side import known_by, side_by_side
from flows.stages.surroundings import here
from flows.train import train
from pairflow.errors import JobFailedError


def test_side_by_side_keeps_order_and_shares_cores() -> None:
    both_here = threading.Barrier(2, timeout=10)  # breaks unless they run at the same time

    def run(name: str) -> tuple[str, int]:
        both_here.wait()
        return name, here().num_sharing

    assert side_by_side(lambda: run("a"), lambda: run("b")) == (("a", 2), ("b", 2))
    assert here().num_sharing == 1


def test_side_by_side_no_more_than_there_is_room_for() -> None:
    running, seen = [0], []

    def run(name: str) -> tuple[str, int]:
        running[0] += 1
        seen.append(running[0])
        time.sleep(0.1)
        running[0] -= 1
        return name, here().num_sharing

    done = side_by_side(*(functools.partial(run, name) for name in "abcde"), at_most=2)
    assert done == tuple((name, 2) for name in "abcde")
    assert max(seen) == 2
    assert side_by_side() == ()


def test_a_run_within_a_run_is_known_by_what_it_is_about() -> None:
    """Prefect makes a task of a flow's function for it, and counts the calls of each."""

    def key(what: str) -> str:
        known = known_by(train, what)
        assert (known.name, known.on_cancellation_hooks) == (train.name, train.on_cancellation_hooks)
        assert signature(known.fn) == signature(train.fn)
        return Task(name=known.name, fn=known.fn).task_key

    assert key("('udlm', 0)") == key("('udlm', 0)")
    assert len({key("('udlm', 0)"), key("('udlm', 1)"), key("('pairflow', 0)"), Task(fn=train.fn).task_key}) == 4


def test_side_by_side_stops_the_others_when_one_fails() -> None:
    def waits() -> bool:
        stopped = here().stopped
        assert stopped is not None
        return stopped.wait(10)

    def fails() -> bool:
        raise JobFailedError("this one")

    started = time.monotonic()
    with pytest.raises(JobFailedError, match="this one"):
        side_by_side(waits, fails)
    assert time.monotonic() - started < 9
