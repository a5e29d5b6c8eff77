"""Folders for temporary files with sockets in them, whose paths must be short and plain."""

import os
import tempfile
from pathlib import Path

from pairflow.errors import SpecError

_SHORT = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108 - what is made in them is its owner's alone
_RAY_ADDS = len("/pairflow-ray-12345678/session_2026-01-01_00-00-00_123456_4194304/sockets/plasma_store")
_LONGEST_SOCKET = 103  # bytes; macOS has the least


def ray_folder() -> Path:
    """A new folder for Ray's session: below TMPDIR where that is short enough and ASCII, else below /tmp.

    Raises:
        SpecError: there is no such place.
    """
    for parent in dict.fromkeys([tempfile.gettempdir(), *_SHORT]):
        fits = parent.isascii() and len(parent) + _RAY_ADDS <= _LONGEST_SOCKET
        if fits and os.access(parent, os.W_OK | os.X_OK):
            return Path(tempfile.mkdtemp(prefix="pairflow-ray-", dir=parent))
    raise SpecError(
        f"TMPDIR is {tempfile.gettempdir()}: Ray's sockets want a folder of at most {_LONGEST_SOCKET - _RAY_ADDS} "
        f"plain letters, and none of {', '.join(_SHORT)} can be written; set TMPDIR to such a folder"
    )
