"""numba's compiler for the engine's loops, with a cache on disk wherever one can be had."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
from numba.core import config


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` compiled when it is first called, without the GIL; what is compiled is kept on disk.

    numba keeps it beside the source or in the user's cache. Where neither can be written (code that root installed, a
    user without a home), a folder of this user's among the temporary files is taken, else it is compiled anew in every
    process: 10 s and more, but the same results.
    """
    for prepare in (lambda: None, _keep_among_temporary_files):
        try:
            prepare()
            return numba.njit(cache=True, nogil=True)(function)
        except (RuntimeError, OSError):  # "no locator available": numba finds no folder that it can write
            continue
    return numba.njit(nogil=True)(function)


def _keep_among_temporary_files() -> None:
    folder = Path(tempfile.gettempdir()) / f"pairflow-numba-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    # What is read from there is run: it must be nobody else's.
    if folder.is_symlink() or status.st_uid != os.getuid() or status.st_mode & 0o022:
        folder = Path(tempfile.mkdtemp(prefix="pairflow-numba-"))
    config.CACHE_DIR = str(folder)  # type: ignore[attr-defined]
