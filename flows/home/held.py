"""Processes that live no longer than whoever asked for them, however that ends.

A holder (a small program of ours) starts the process and watches its own standard input. When the owner closes that
pipe, or dies in any way at all, the holder ends the process and all that came of it, by process id. This module run as
a program is the holder of a process that needs nothing besides; it removes the owner's folder where that was killed.
"""

import contextlib
import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import psutil

_GRACE_S = 6.0
_LINUX = sys.platform.startswith("linux")


def start_holder(
    module: str, *arguments: str, environment: Mapping[str, str], folder: Path | None = None
) -> "subprocess.Popen[bytes]":
    """Starts a holder, `python -m module`; it is let go by `let_go`, or by the end of this process.

    It has a session of its own: signals to the owner's group, such as Ctrl-C, are the owner's, which ends its work
    before it lets go.
    """
    return subprocess.Popen(  # noqa: S603 - our own module, no shell
        [sys.executable, "-m", module, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=folder,
        env=dict(environment),
        start_new_session=True,
    )


def let_go(holder: "subprocess.Popen[bytes]") -> None:
    """Ends a holder and what it holds, and waits until both are gone; calling it again does nothing."""
    if holder.stdin is not None and not holder.stdin.closed:
        holder.stdin.close()
    try:
        holder.wait(3 * _GRACE_S)
    except subprocess.TimeoutExpired:
        holder.kill()
        holder.wait()


def hold(
    command: Callable[[], tuple[Sequence[str], Mapping[str, str] | None]],
    log_path: Path,
    *,
    again: Callable[[str], bool] = lambda said: False,
    patience_s: float = 0,
    owner: IO[Any] | None = None,
    grace_s: float = _GRACE_S,
) -> int | None:
    """Runs a command until the owner lets go (None), or until it ends by itself (its exit code).

    Args:
        command: its words and environment, asked anew for every attempt.
        log_path: takes its output.
        again: whether it is to be started once more, by the output of an attempt that has failed.
        patience_s: how long after the first attempt.
        owner: a pipe that nobody writes to; standard input by default.
        grace_s: how long the process may take to end in order, and to end its children; 0: all are killed at once.
    """
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(1))
    _adopt_orphans()
    released = threading.Event()

    def watch() -> None:
        # Not by its buffer: a thread that waits within one has Python abort at the end, whatever the exit code.
        while os.read((owner or sys.stdin).fileno(), 1024):
            pass
        released.set()

    threading.Thread(target=watch, daemon=True).start()
    deadline = time.monotonic() + patience_s
    while True:
        words, environment = command()
        with log_path.open("wb") as log:
            process = subprocess.Popen(  # noqa: S603 - our own words, no shell
                words,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                preexec_fn=_end_with_parent(),
            )
        try:
            while process.poll() is None and not released.wait(0.2):
                pass
        finally:
            _end_all(process, grace_s)
        said = log_path.read_text(errors="replace")
        if released.is_set():
            return None
        if process.returncode == 0 or time.monotonic() > deadline or not again(said):
            return process.returncode


def _end_all(process: "subprocess.Popen[bytes]", grace_s: float) -> None:
    """Ends the process, which ends its children in order; then whatever of them is left."""
    if process.poll() is None and grace_s:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(grace_s)
    deadline = time.monotonic() + _GRACE_S
    while (left := psutil.Process().children(recursive=True)) and time.monotonic() < deadline:
        for each in left:  # one may have started another since; that one is then ours
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
        psutil.wait_procs(left, timeout=_GRACE_S)
    process.wait()


def _adopt_orphans() -> None:
    """On Linux, children whose parent dies become this process's, which can end them then."""
    if _LINUX:
        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER


def _end_with_parent() -> Callable[[], None] | None:
    """On Linux, makes a child end with this process even where that is killed and runs no `finally`."""
    if not _LINUX:
        return None
    prctl, set_parent_death_signal = ctypes.CDLL(None, use_errno=True).prctl, 1
    return lambda: prctl(set_parent_death_signal, signal.SIGTERM)


def _hold_words(words: list[str], log: str, remains: str) -> int:
    owner = os.getppid()
    code = hold(lambda: (words, os.environ), Path(log))
    if code is None and os.getppid() != owner:  # it was killed, and removes nothing any more
        shutil.rmtree(remains, ignore_errors=True)
    code = code or 0
    return code if code >= 0 else 128 - code  # of a signal, as a shell says it


if __name__ == "__main__":
    sys.exit(_hold_words(**json.loads(sys.argv[1])))
