"""When the reconciler last did its round: a file that it touches, for whoever watches over it."""

import contextlib
import math
import time
from pathlib import Path

from flows.home.addresses import service_folder


def note(home: Path) -> None:
    """A round is done. Where the home cannot be written, as on some clusters, nobody is told."""
    path = _path(home)
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def seconds_since(home: Path) -> float:
    """Seconds since the last round; infinity where there was none."""
    try:
        return time.time() - _path(home).stat().st_mtime
    except OSError:
        return math.inf


def _path(home: Path) -> Path:
    return service_folder(home) / "reconciled"
