"""Runs whose command was killed, in a history that outlives it, on a real Prefect server."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Completed, Running

from flows.service.unfinished import end_unfinished, hold_run

_HOLDS = """
import sys, time
from pathlib import Path
from uuid import UUID
from flows.service.unfinished import hold_run
hold_run(Path(sys.argv[1]), UUID(sys.argv[2]))
print("holds", flush=True)
time.sleep(60)
"""


@flow
def nothing() -> None:
    """Has runs that nobody runs."""


@pytest.fixture
def prefect(prefect_url: str) -> Iterator[SyncPrefectClient]:
    with temporary_settings({PREFECT_API_URL: prefect_url}), get_client(sync_client=True) as client:
        yield client


def _state(prefect: SyncPrefectClient, run: UUID) -> str:
    state = prefect.read_flow_run(run).state
    assert state is not None
    return state.name


def test_runs_of_killed_commands_are_ended_and_others_not(prefect: SyncPrefectClient, tmp_path: Path) -> None:
    killed, mine, done, others = (
        prefect.create_flow_run(nothing, state=state).id for state in (Running(), Running(), Completed(), Running())
    )
    ended = []
    for run in (done, killed):
        command = [sys.executable, "-c", _HOLDS, str(tmp_path), str(run)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "holds\n"
            ended += end_unfinished(tmp_path)
            process.kill()
    assert ended == []
    hold_run(tmp_path, mine)
    hold_run(tmp_path, uuid4())  # of another history
    assert len(end_unfinished(tmp_path)) == 1
    assert [_state(prefect, run) for run in (killed, mine, done, others)] == [
        "Crashed",
        "Running",
        "Completed",
        "Running",
    ]
    assert end_unfinished(tmp_path) == []
