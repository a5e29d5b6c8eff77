"""One at a time: a lock among all processes that share PAIRFLOW_HOME, which no kill can leave behind.

The operating system holds it for as long as the process that took it lives (`flock`), so it needs no server, and works
as well where Prefect's API is embedded in the command.
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from pairflow.errors import SpecError

_SECONDS_BETWEEN_LOOKS = 0.5


@contextlib.contextmanager
def only_one(folder: Path, name: str, holder: str) -> Iterator[str | None]:
    """Holds the lock of a name, or says who does.

    Args:
        folder: of the locks; made if it is not there.
        name: of what is done by one at a time, fit for a file's name.
        holder: who asks, for the others to read.

    Yields:
        None if the lock is ours within this block, else who holds it.

    Raises:
        SpecError: the folder cannot be written, or its filesystem has no locks.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / f"{name}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise SpecError(f"no lock can be made in {folder}: {error}; PAIRFLOW_HOME must be writable") from error
    with os.fdopen(descriptor, "r+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield file.read().strip() or "another process"
            return
        except OSError as error:
            raise SpecError(
                f"{folder} is on a filesystem without locks ({error}); put PAIRFLOW_HOME on one that has them"
            ) from error
        # The file stays: to remove it would let a third process lock another file of the same name.
        file.truncate()
        file.write(holder)
        file.flush()
        yield None


@contextlib.contextmanager
def in_turn(folder: Path, name: str, holder: str, waiting: Callable[[str], None]) -> Iterator[None]:
    """Waits until nobody else holds the lock of a name, and holds it within this block.

    Args:
        folder: as for `only_one`.
        name: likewise.
        holder: likewise.
        waiting: is told once whom is waited for.

    Raises:
        SpecError: as `only_one`.
    """
    told = False
    while True:
        with only_one(folder, name, holder) as other:
            if other is None:
                yield
                return
        if not told:
            told = True
            waiting(other)
        time.sleep(_SECONDS_BETWEEN_LOOKS)
