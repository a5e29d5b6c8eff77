"""Paths as people write them, read without surprises."""

import errno
import os
from pathlib import Path

from pairflow.errors import SpecError

_NOTHING_THERE = (errno.ENOENT, errno.ENOTDIR)


def user_path(path: str | os.PathLike[str], name: str = "the path") -> Path:
    """A path with `~` read as a home; whether there is anything, it can be asked without an exception.

    Args:
        path: as it was given.
        name: what gave it, for messages.

    Raises:
        SpecError: no file can be called that, there is no such user, or the way to it is closed or a loop.
    """
    text = os.fspath(path)
    if "\0" in text:
        raise SpecError(f"{name} {text!r} is no path, as it holds a zero byte; correct it")
    try:
        expanded = Path(text).expanduser()
    except RuntimeError:
        raise SpecError(f"{name} {text}: this machine knows no such user's home; write the path out") from None
    except ValueError as error:
        raise SpecError(f"{name} {text!r} is no path: {error}; correct it") from None
    try:
        expanded.stat()
    except OSError as error:
        if error.errno not in _NOTHING_THERE:
            shown = text if len(text) < 200 else f"{text[:80]}…{text[-20:]}"
            raise SpecError(f"{name} {shown}: {error.strerror}; name one that you can reach") from None
    except ValueError as error:  # half of a surrogate pair, as from JSON
        raise SpecError(f"{name} {text!r} is no path: {error}; correct it") from None
    return expanded


def default_home() -> Path:
    """`~/.pairflow`, where everything is kept unless PAIRFLOW_HOME says otherwise.

    Raises:
        SpecError: this user has no home.
    """
    try:
        return Path.home() / ".pairflow"
    except RuntimeError:
        raise SpecError(
            f"user {os.getuid()} has no home folder on this machine; set PAIRFLOW_HOME to a folder that can be written"
        ) from None
