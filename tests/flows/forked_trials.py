"""Trials of models that fork off a process which has MLflow and torch, and nothing of ours, in memory.

`flows/lineage/trial.py` starts a new Python for each, whose imports cost a core eight seconds.
`test_logged_models.py` and the service's tests have it do so.
"""

import os
import subprocess
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

VARIABLE = "PAIRFLOW_TEST_STRANGERS"
"""Where a process finds the nursery of strangers, so that its trials fork off that."""


def fork_them() -> None:
    """Has the trials of this process fork off the nursery that the environment names."""
    from flows.lineage import trial

    trial.subprocess = SimpleNamespace(run=_run, TimeoutExpired=subprocess.TimeoutExpired)  # type: ignore[assignment]


def _run(command: list[str], *, env: dict[str, str], timeout: float, **_: Any) -> "subprocess.CompletedProcess[str]":
    from tests.flows.nursery import Child

    program, *arguments = command[command.index("-B") + 1 :]
    with tempfile.TemporaryDirectory(prefix="pairflow-trial-") as folder:
        said = Path(folder) / "stdout", Path(folder) / "stderr"
        child = Child(os.environ[VARIABLE], program, arguments, environment=env, stdout=said[0], stderr=said[1])
        return subprocess.CompletedProcess(command, child.wait(timeout), *(each.read_text() for each in said))
