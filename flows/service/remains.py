"""Processes that nobody watches any more: found by a mark that all under the supervisor bear, ended by their ids."""

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

import psutil

OWNER_VARIABLE = "PAIRFLOW_SERVICE_OF"
"""Set to the home for every process under the supervisor; so they are told from those of another home."""


def processes_of(home: Path, *, with_variable: str | None = None) -> list[psutil.Process]:
    """Processes that bear the mark of this home, but for this one; those that have a certain variable, if given."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.pid == os.getpid() or process.uids().real != os.getuid():
                continue
            environment = process.environ()
            if environment.get(OWNER_VARIABLE) == str(home) and (with_variable is None or with_variable in environment):
                found.append(process)
    return found


def end(processes: Sequence[psutil.Process], *, timeout_s: float = 10) -> list[psutil.Process]:
    """Asks processes to end, then kills them; those that are there even so."""
    alive = list(processes)
    for ask in ("terminate", "kill"):
        for each in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                getattr(each, ask)()
        _, alive = psutil.wait_procs(alive, timeout=timeout_s)
    return alive
