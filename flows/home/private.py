"""Folders that only their owner may enter: for sockets, tokens and what else lets people in."""

import os
from pathlib import Path

from pairflow.errors import SpecError


def private_folder(path: Path) -> Path:
    """Makes a folder that nobody else may enter, whatever this user's mask is; one that could be read is closed.

    Raises:
        SpecError: it cannot be made, or is another user's, or others could have written into it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=0o700, exist_ok=True)
        status = path.lstat()
        if status.st_uid == os.getuid() and not status.st_mode & 0o022 and not path.is_symlink():
            path.chmod(0o700)  # a mask may also have taken from the owner
            return path
    except OSError as error:
        raise SpecError(f"the folder {path} cannot be made: {error.strerror}; its parent must be writable") from None
    raise SpecError(f"{path} must be a folder of yours that only you may enter; look into it, then remove it")


def close_home(path: Path) -> bool:
    """Closes a home to everybody but its owner, databases, logs and artifacts included; whether it was open.

    Raises:
        SpecError: it is another user's, who could read all of it, and put in what he likes.
    """
    status = path.stat()
    if status.st_uid != os.getuid():
        raise SpecError(
            f"PAIRFLOW_HOME {path} is a folder of user {status.st_uid}, and you are {os.getuid()}: its owner could let "
            "himself in; name a folder of your own, or have PAIRFLOW_AUTH=off"
        )
    if not status.st_mode & 0o077:
        return False
    path.chmod(0o700)
    return True
