"""Who has the turn at something, among drivers of a cluster or jobs of commands: one of them, until it lets go or is
killed.
"""

import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flows.cluster.local import LocalCluster, wait_for_head
from flows.cluster.own_jobs import HEAD_VARIABLE

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

    def __init__(self, environment: dict[str, str], what: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", _DRIVER, what],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.refused = 0
        """Lines of Ray's about attempts that failed."""

    def says(self) -> str:
        """Its next line that is ours."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.refused += "already exists" in line
            if line.startswith(("has it", "let go")) or "makes the same at this moment" in line:
                return line.strip()
        return "ended"

    def let_go(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.stdin = None  # `communicate` would flush it


@pytest.fixture(params=["drivers of a cluster", "jobs of two commands"])
def drive(
    request: pytest.FixtureRequest, ray_cluster: LocalCluster, bare_environment: dict[str, str], tmp_path: Path
) -> Iterator[Callable[[str], Driver]]:
    """Starts drivers of the session's cluster, or jobs that are processes of a command; none is left at the end."""
    if request.param == "jobs of two commands":
        environment = bare_environment | {"PAIRFLOW_HOME": str(tmp_path)}
    else:
        address = {"RAY_ADDRESS": wait_for_head(ray_cluster.folder, patience_s=60)}
        environment = bare_environment | ray_cluster.environment | address
    started: list[Driver] = []

    def start(what: str) -> Driver:
        of_its_own = {HEAD_VARIABLE: str(tmp_path / f"command {len(started)}")}
        started.append(Driver(environment | (of_its_own if "RAY_ADDRESS" not in environment else {}), what))
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
    # The first is no job of Ray's; of a command's, its process is known.
    assert re.match(rf"(another job|process {first.process.pid}) makes the same", second.says())
    time.sleep(4)  # of waiting, which is not told again and again
    first.let_go()
    assert [first.says(), second.says()] == ["let go", "has it"]
    assert second.refused <= 1


def test_what_is_killed_holds_nobody_up(drive: Callable[[str], Driver]) -> None:
    first = drive("these pairs")
    assert first.says() == "has it"
    first.process.kill()
    second = drive("these pairs")
    assert second.says() == "has it" or second.says() == "has it"  # it may have had to wait until Ray knew
