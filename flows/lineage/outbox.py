"""What a stage says to MLflow, in a file until MLflow has taken it.

`<home>/mlflow/unsent/<stage>-<fingerprint>-….jsonl` holds one operation a line, in order. A thread sends them, so that
no step of a training ever waits for a server; what a server has not taken is sent again until it has, and a file that
its process could not empty is sent by the next stage of this home, or by `pairflow lineage --sync`. Operations are
such that one that arrives twice counts once.

A file is locked (`flock`) for as long as its process lives, however that ends.
"""

import contextlib
import errno
import fcntl
import json
import logging
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlflow.exceptions import MlflowException

from flows.lineage.errors import LineageError
from flows.lineage.waiting import first_line, passes, pause_s

Operation = Mapping[str, Any]
Deliver = Callable[[Sequence[Operation]], None]
_SEND_EVERY_S = 2.0
_CHUNK = 1 << 20  # bytes in memory at a time, however much waits
_logger = logging.getLogger("pairflow.lineage")


class StartAgain(Exception):  # noqa: N818 - no error, but an order
    """What was sent went to a run that is no more: all of it is to be sent once more."""


class Outbox:
    """Operations on their way to MLflow, sent in order by a thread of its own.

    Args:
        folder: of the files.
        name: begins the file's name.
        deliver: sends operations; raises MlflowException, or StartAgain.
        uri: of MLflow, for messages.

    Raises:
        LineageError: the file cannot be written.
    """

    def __init__(self, folder: Path, name: str, deliver: Deliver, uri: str) -> None:
        self._deliver, self._uri = deliver, uri
        self._path = folder / f"{name}-{uuid.uuid4().hex[:8]}.jsonl"
        draft = self._path.with_suffix(".new")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = os.open(draft, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
            fcntl.flock(self._file, fcntl.LOCK_EX)
            draft.rename(self._path)  # seen only once it is locked
        except OSError as error:
            raise LineageError(
                f"cannot write {self._path}: {error}; make room, or name another PAIRFLOW_HOME"
            ) from None
        self._written = self._sent = 0
        self._refused: Exception | None = None
        self._hurried = self._closed = False
        self._state = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="mlflow-outbox", daemon=True)
        self._thread.start()

    @property
    def refused(self) -> Exception | None:
        """Why MLflow will take nothing more, if it said so."""
        return self._refused

    def put(self, *operations: Operation) -> None:
        """Takes operations down; returns at once.

        Raises:
            LineageError: there is no room for them on the disk.
        """
        data = "".join(f"{json.dumps(each)}\n" for each in operations).encode()
        with self._state:
            try:
                if os.write(self._file, data) < len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError as error:
                os.ftruncate(self._file, self._written)  # a part of a line would spoil the next
                raise LineageError(f"cannot write {self._path}: {error}; make room on that disk") from None
            self._written += len(data)
            self._state.notify_all()

    def wait(self, timeout_s: float) -> bool:
        """Whether everything was taken, within so many seconds."""
        with self._state:
            self._hurried = True
            self._state.notify_all()
            self._state.wait_for(lambda: self._refused or self._sent == self._written, timeout_s)
            self._hurried = False
            return self._sent == self._written

    def close(self, timeout_s: float) -> bool:
        """`wait`, then ends the thread; the file goes if everything was taken, and else stays to be sent later."""
        done = self.wait(timeout_s)
        with self._state:
            self._closed = True
            self._state.notify_all()
        self._thread.join(1)  # it may be waiting for a server: as a daemon it does not keep the process
        if done:
            self._path.unlink(missing_ok=True)
        if not self._thread.is_alive():
            os.close(self._file)
        return done

    def _work(self) -> None:
        failures = 0
        away_since = 0.0
        while True:
            with self._state:
                self._state.wait_for(lambda: self._closed or self._sent < self._written)
                if self._closed:
                    return
            operations, end = read_operations(self._file, self._sent)
            try:
                self._deliver(operations)
            except StartAgain:
                end = 0
            except MlflowException as error:
                if not passes(error):
                    self._give_up(error)
                    return
                if not failures:
                    away_since = time.monotonic()
                    _logger.warning(
                        "MLflow at %s does not answer (%s); the work goes on, and what it logs is kept in %s and sent "
                        "when MLflow is back",
                        self._uri,
                        first_line(error),
                        self._path,
                    )
                self._rest(pause_s(failures), hurry=False)
                failures += 1
                continue
            except Exception as error:
                self._give_up(error)
                return
            if failures:
                _logger.warning("MLflow answers again, after %.0f s; nothing was lost", time.monotonic() - away_since)
                failures = 0
            with self._state:
                self._sent = end
                self._state.notify_all()
            self._rest(_SEND_EVERY_S, hurry=True)

    def _rest(self, seconds: float, *, hurry: bool) -> None:
        with self._state:
            self._state.wait_for(lambda: self._closed or (hurry and self._hurried), seconds)

    def _give_up(self, error: Exception) -> None:
        _logger.warning(
            "MLflow at %s refuses what this stage logs (%s); the work goes on, and what it logs stays in %s",
            self._uri,
            first_line(error),
            self._path,
        )
        with self._state:
            self._refused = error
            self._state.notify_all()


def read_operations(file: int, start: int) -> tuple[list[Operation], int]:
    """Whole lines of an outbox from a byte on, some of them, and the byte after the last."""
    size = _CHUNK
    while True:
        data = os.pread(file, size, start)
        whole = data[: data.rfind(b"\n") + 1]
        if whole or len(data) < size:
            break
        size *= 2  # a line that is longer than that
    return [json.loads(line) for line in whole.split(b"\n")[:-1]], start + len(whole)


@contextlib.contextmanager
def left_behind(path: Path) -> Iterator[int | None]:
    """The open file of an outbox whose process is gone; None while that lives, or if another sends it."""
    try:
        file = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        yield None
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        yield None
    else:
        # Another may have sent and removed it between the two calls.
        yield file if path.exists() else None
    finally:
        os.close(file)
