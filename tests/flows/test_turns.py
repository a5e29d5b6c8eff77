"""Who has the turn at something, among drivers of one cluster: one of them, until it lets go or is killed."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from flows.cluster.local import LocalCluster

_DRIVER = """
import logging, sys
logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
from flows.jobs.turns import turn
with turn(sys.argv[1]):
    print("has it", flush=True)
    sys.stdin.readline()
print("let go", flush=True)
"""


class Driver:
    """A process that takes a turn, and holds it until it is told to let go."""

    def __init__(self, address: str, environment: dict[str, str], what: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", _DRIVER, what],
            env=environment | {"RAY_ADDRESS": address},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def says(self) -> str:
        """Its next line that is ours."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(("has it", "let go")) or "makes the same at this moment" in line:
                return line.strip()
        return "ended"

    def let_go(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.stdin = None  # `communicate` would flush it


@pytest.fixture
def drive(ray_cluster: LocalCluster, bare_environment: dict[str, str]) -> Iterator[Callable[[str], Driver]]:
    """Starts drivers of the session's cluster, of which none is left at the end."""
    from ray.job_submission import JobSubmissionClient

    client = JobSubmissionClient(ray_cluster.address, headers=ray_cluster.headers)
    job = client.submit_job(entrypoint="echo at=$RAY_ADDRESS", entrypoint_num_cpus=0)
    while not client.get_job_status(job).is_terminal():
        time.sleep(0.1)
    (address,) = (line[3:] for line in client.get_job_logs(job).splitlines() if line.startswith("at="))
    started: list[Driver] = []

    def start(what: str) -> Driver:
        started.append(Driver(address, bare_environment | ray_cluster.environment, what))
        return started[-1]

    yield start
    for each in started:
        each.process.kill()
        each.process.communicate()


def test_one_at_a_time_and_others_at_something_else(drive: Callable[[str], Driver]) -> None:
    first = drive("these pairs")
    assert first.says() == "has it"
    other = drive("other pairs")
    assert other.says() == "has it"
    second = drive("these pairs")
    assert second.says().startswith("another job makes the same")  # the first is no job of Ray's
    first.let_go()
    assert [first.says(), second.says()] == ["let go", "has it"]


def test_what_is_killed_holds_nobody_up(drive: Callable[[str], Driver]) -> None:
    first = drive("these pairs")
    assert first.says() == "has it"
    first.process.kill()
    second = drive("these pairs")
    assert second.says() == "has it" or second.says() == "has it"  # it may have had to wait until Ray knew
