"""SIGINT, SIGTERM and SIGHUP: a command ends once, in order and soon, with the exit code that shells know.

The first signal interrupts the work as Ctrl-C does: jobs are stopped, the run ends in Prefect, servers of this command
end. What hangs in that is cut off after a while, and by a second signal at once; processes that the command holds end
with it in any case (`flows.home.held`). A signal that was ignored when the command began (nohup, `&` in a script) stays
so.
"""

import contextlib
import os
import signal
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PATIENCE_S = 14.0  # the holders of Ray and Prefect need up to 6 s more
_ONE_SIGNAL_S = 1.0  # `timeout` and Ctrl-C reach a process twice: by itself and in its group
_received: list[int] = []
_began: list[float] = []
_patience = [_PATIENCE_S]
_at_once: list[Callable[[], object]] = []


@contextlib.contextmanager
def handled() -> Iterator[None]:
    """Within this block signals end the command; leaving it after one exits with 128 and its number."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    for number in _SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _interrupt)
    threading.Thread(target=_watch, args=(reading,), daemon=True).start()
    try:
        yield
    finally:
        if _received:
            _flush()
            sys.exit(128 + _received[0])  # whatever was raised on the way here came of the signal


def take_your_time(seconds: float, *, at_once: Callable[[], object]) -> None:
    """For `pairflow up`, whose programs end one after the other.

    Args:
        seconds: until what hangs is cut off.
        at_once: what a second signal does before the command exits.
    """
    _patience[0] = seconds
    _at_once.append(at_once)


def _interrupt(number: int, _frame: FrameType | None) -> None:
    _arrived(number)
    if _received:
        return
    _received.append(number)
    if number == signal.SIGHUP:
        _leave_the_terminal()
    raise KeyboardInterrupt


def _watch(reading: int) -> None:
    """Sees signals as they arrive, also while the main thread is deep in a library and hears of none."""
    while True:
        number = os.read(reading, 1)[0]
        if number in _SIGNALS:
            _arrived(number)


def _arrived(number: int) -> None:
    """Both of the above tell of each signal; so does `timeout`, which signals a process and then its group."""
    if not _began:
        _began.append(time.monotonic())
        threading.Thread(target=_cut_off, args=(number,), daemon=True).start()
    elif time.monotonic() - _began[0] > _ONE_SIGNAL_S:
        _leave(number)


def _cut_off(number: int) -> None:
    since = time.monotonic()
    while time.monotonic() - since < _patience[0]:
        time.sleep(0.1)
    _leave(number)


def _leave(number: int) -> None:
    with contextlib.suppress(Exception):
        for action in _at_once:
            action()
    os._exit(128 + (_received[0] if _received else number))


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()


def _leave_the_terminal() -> None:
    """What is written to a terminal that is gone would raise in the middle of ending."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        with contextlib.suppress(OSError):
            if stat.S_ISCHR(os.fstat(descriptor).st_mode):
                os.dup2(nowhere, descriptor)
    os.close(nowhere)
