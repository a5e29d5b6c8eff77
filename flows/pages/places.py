"""Paths and commands as a person on this machine would type them: short where that means the same."""

import os
import shlex
import shutil
import sys
from pathlib import Path

from flows.home.settings import Settings


def short(path: str) -> str:
    """A path from where the user stands, if it lies below; else, and of an address, what was given."""
    if "://" in path:
        return path
    try:
        return os.path.relpath(path) if Path(path).is_relative_to(Path.cwd()) else path
    except OSError:  # where the user stands is gone
        return path


def program(name: str) -> str:
    """A program of this environment: its name if the shell finds it, else its path."""
    path = Path(sys.executable).with_name(name)
    found = shutil.which(name)
    return name if found and os.path.realpath(found) == os.path.realpath(path) else short(str(path))


def up_command(settings: Settings) -> str:
    """The command line that starts the servers of this home."""
    is_default = str(settings.home) == os.path.expanduser("~/.pairflow")
    home = "" if is_default else f"PAIRFLOW_HOME={shlex.quote(short(str(settings.home)))} "
    return f"{home}{shlex.quote(program('pairflow'))} up"
