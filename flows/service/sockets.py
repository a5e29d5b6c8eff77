"""Where the sockets of a home lie: a function of the home alone, so that every shell finds the same ones."""

import contextlib
import hashlib
import os
import socket
from pathlib import Path

from flows.home.addresses import service_folder

_NAME = "supervisor.sock"
_LONGEST = 90  # Unix sockets' paths end at 107 bytes, and supervisord binds to a longer name first
_SHORT_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108 - what lies in them is a folder of its owner's


def runtime_folder(home: Path) -> Path:
    """A short folder for sockets that a deep home cannot hold; TMPDIR has no say, as it differs from shell to shell."""
    name = f"pairflow-{os.getuid()}-{hashlib.sha256(os.fsencode(home)).hexdigest()[:8]}"
    usable = [each for each in _SHORT_FOLDERS if os.access(each, os.W_OK | os.X_OK)]
    return Path((usable or _SHORT_FOLDERS)[0]) / name


def supervisor_socket(home: Path) -> Path:
    """The supervisor's socket: in the home, which no cleaner of temporary files visits, else in the runtime folder."""
    places = _places(home)
    return next((each for each in places if each.exists()), places[0])


def choose_socket(home: Path) -> Path:
    """Where a supervisor that is about to start shall listen; the remains of earlier ones are taken away."""
    places = _places(home)
    for each in places:
        with contextlib.suppress(OSError):
            each.unlink()
    return next((each for each in places if _holds_sockets(each.parent)), places[-1])


def _places(home: Path) -> list[Path]:
    inside = service_folder(home) / _NAME
    return [*([inside] if len(os.fsencode(inside)) <= _LONGEST else []), runtime_folder(home) / _NAME]


def _holds_sockets(folder: Path) -> bool:
    """Whether the filesystem has sockets and hard links to them, as supervisord wants; some network disks have not."""
    probe, link = folder / f".probe-{os.getpid()}", folder / f".linked-{os.getpid()}"
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(probe))
            os.link(probe, link)
    except OSError:
        return False
    finally:
        for each in (probe, link):
            each.unlink(missing_ok=True)
    return True
