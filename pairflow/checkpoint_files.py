"""What a checkpoint's files say without torch: which there are, their state, and whether they are whole.

torch takes seconds to load, and who asks only whether a model is there, and which, needs none of it.
"""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from pairflow.errors import CheckpointError

FORMAT_VERSION = 1
TENSORS, STATE = "tensors.safetensors", "state.json"
EXPORTED_TENSORS, EXPORTED_STATE = "model.safetensors", "config.json"
"""The same two in a folder that `pairflow.exported.export` wrote, by the names that model hubs know."""
_STEP_FOLDER = re.compile(r"step-(\d{8,})")


def steps(directory: Path) -> list[tuple[int, Path]]:
    """(step, folder) of the whole checkpoints in a folder, in ascending order; [] if there is none."""
    if not directory.is_dir():
        return []
    found = ((_STEP_FOLDER.fullmatch(path.name), path) for path in directory.iterdir())
    return sorted((int(match[1]), path) for match, path in found if match and (path / STATE).is_file())


def latest(directory: Path) -> Path | None:
    """The folder of the last checkpoint, or None."""
    found = steps(directory)
    return found[-1][1] if found else None


def is_checkpoint(path: Path) -> bool:
    """Whether a folder is one checkpoint, as a training or an export leaves it."""
    return (path / STATE).is_file() or is_exported(path)


def is_exported(path: Path) -> bool:
    """Whether a folder holds what an export wrote: the averaged weights alone."""
    return not (path / STATE).is_file() and (path / EXPORTED_STATE).is_file()


def _names(path: Path) -> tuple[str, str]:
    return (EXPORTED_TENSORS, EXPORTED_STATE) if is_exported(path) else (TENSORS, STATE)


def read_state(path: Path) -> dict[str, Any]:
    """The JSON state alone of one checkpoint folder.

    Raises:
        CheckpointError: missing, not JSON, or written by another format version.
    """
    _, name = _names(path)
    try:
        state = json.loads((path / name).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"checkpoint {path}: cannot read {name}: {error}; {remedy(path)}") from None
    version = state.get("format_version") if isinstance(state, dict) else None
    if version != FORMAT_VERSION:
        raise CheckpointError(f"checkpoint {path}: format_version is {version}, this release reads {FORMAT_VERSION}")
    return state


def read_tensors(path: Path) -> tuple[bytes, dict[str, Any]]:
    """The bytes of the tensors' file and the state of one checkpoint folder, checked against its SHA-256.

    Raises:
        CheckpointError: missing, damaged, or written by another format version.
    """
    state, (name, said_in) = read_state(path), _names(path)
    try:
        content = (path / name).read_bytes()
    except OSError as error:
        raise CheckpointError(f"checkpoint {path}: cannot read {name}: {error}; {remedy(path)}") from None
    digest = hashlib.sha256(content).hexdigest()
    if digest != state.get("sha256"):
        raise CheckpointError(
            f"checkpoint {path}: {name} is damaged: its SHA-256 is {digest}, {said_in} says "
            f"{state.get('sha256')}; {remedy(path)}"
        )
    return content, state


def is_whole(path: Path) -> bool:
    """Whether a checkpoint's folder has a state, and the tensors that belong to it."""
    try:
        return file_sha256(path / _names(path)[0]) == read_state(path).get("sha256")
    except (OSError, CheckpointError):
        return False


def file_sha256(path: Path) -> str:
    """SHA-256 (64 hex digits) of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remedy(path: Path) -> str:
    """What to do about a damaged checkpoint: there may be an older one beside it."""
    if is_exported(path):
        return "export it again"
    before = [folder.name for _, folder in steps(path.parent) if folder.name < path.name]
    then = f"go on from {before[-1]}, the one before it" if before else "start again: there is none before it"
    return f"remove this folder to {then}"
