"""Runs of commands that were killed: nobody was left to end them in a history that outlives its server.

Each command locks a file named like its run for as long as it lives. The next command of this home that starts a
temporary server, or the next `pairflow up`, ends the runs whose file nobody locks any more.
"""

import contextlib
import fcntl
import os
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.exceptions import ObjectNotFound
from prefect.states import Crashed

from flows.service import nested_runs

_held: list[int] = []


def _folder(home: Path) -> Path:
    return home / "prefect" / "at-work"


def hold_run(home: Path, flow_run_id: UUID) -> None:
    """Notes that this process works on a run, for as long as it lives."""
    with contextlib.suppress(OSError):  # a disk without locks, or full: the run alone matters
        _folder(home).mkdir(parents=True, exist_ok=True)
        descriptor = os.open(_folder(home) / str(flow_run_id), os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _held.append(descriptor)


def end_unfinished(home: Path) -> list[str]:
    """Ends the runs whose command is gone; their names."""
    ended: list[str] = []
    if not _folder(home).is_dir():
        return ended
    with get_client(sync_client=True) as prefect:
        for path in sorted(_folder(home).iterdir()):
            with contextlib.suppress(OSError), path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises where its command lives
                ended += _end(prefect, path.name)
                path.unlink()
        if ended:
            nested_runs.end_those_without_parent(prefect)
    return ended


def _end(prefect: SyncPrefectClient, name: str) -> list[str]:
    try:
        run: Any = prefect.read_flow_run(UUID(name))
    except (ObjectNotFound, ValueError):
        return []
    if run.state is not None and run.state.is_final():
        return []
    message = "The command was killed while this run was at work. What is finished is kept: run the same command again."
    prefect.set_flow_run_state(run.id, Crashed(message=message), force=True)
    return [str(run.name)]
