"""Processes that nobody watches any more: found by a mark that all under the supervisor bear, ended by their ids."""

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

import psutil

from flows.home.addresses import OWNER_VARIABLE
from flows.service.sockets import runtime_folder

_SUPERVISOR = "supervisor.supervisord"
_TITLES = ("ray::", "ray-dashboard")
_ROUNDS = 10  # Ray's head, cut off while it starts, needs two


def program_mark(name: str) -> str:
    """The variable that a program of the supervisor and its children bear."""
    return f"PAIRFLOW_IS_{name.upper()}"


def processes_of(home: Path, *, with_variable: str | None = None) -> list[psutil.Process]:
    """Processes that bear the mark of this home, but for this one; those that have a certain variable, if given."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.pid == os.getpid() or process.uids().real != os.getuid():
                continue
            if _has_terminal(process):  # somebody's shell that inherited the mark: ours have none
                continue
            environment = _marks(process, home)
            if environment.get(OWNER_VARIABLE) == str(home) and (with_variable is None or with_variable in environment):
                found.append(process)
    return found


def _marks(process: psutil.Process, home: Path) -> dict[str, str]:
    """The environment; of processes with a title of Ray's, that is written over it, what it said of the home.

    They are where the supervisor starts all its programs.
    """
    command = process.cmdline()
    if command and command[0].startswith(_TITLES) and Path(process.cwd()) == runtime_folder(home).resolve():
        return {OWNER_VARIABLE: str(home), program_mark("ray"): "1"}
    return process.environ()


def _has_terminal(process: psutil.Process) -> bool:
    # psutil knows only the terminals that there were when it was first asked: a shell of today would be ended.
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[4] != "0"
    return process.terminal() is not None


def supervisor_of(home: Path) -> psutil.Process | None:
    """The supervisor of this home, if one lives; the mark tells, even where its socket and files are gone."""
    for process in processes_of(home):
        with contextlib.suppress(psutil.Error):
            if _SUPERVISOR in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE:
                return process
    return None


def end_all(
    home: Path, *, with_variable: str | None = None, timeout_s: float = 10
) -> tuple[list[psutil.Process], list[psutil.Process]]:
    """Ends all that bear the mark of a home, until none is found: what ends may have been starting others.

    Returns:
        Those that were found, and those that are there even so.
    """
    found: list[psutil.Process] = []
    for _ in range(_ROUNDS):
        if not (here := processes_of(home, with_variable=with_variable)):
            return found, []
        found += here
        if alive := end(here, timeout_s=timeout_s):
            return found, alive
    return found, processes_of(home, with_variable=with_variable)


def end(processes: Sequence[psutil.Process], *, timeout_s: float = 10) -> list[psutil.Process]:
    """Asks processes to end, then kills them; those that are there even so."""
    alive = list(processes)
    for ask in ("terminate", "kill"):
        for each in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                getattr(each, ask)()
        _, alive = psutil.wait_procs(alive, timeout=timeout_s)
    return alive
