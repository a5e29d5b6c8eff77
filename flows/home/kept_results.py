"""What training and evaluation leave on this disk, under PAIRFLOW_HOME.

runs/<training fingerprint>/checkpoints/step-…/    safetensors and JSON
runs/<training fingerprint>/result.json            written when the model is trained and logged
evaluations/<fingerprint>/                         scores.json and samples.npz of one model, whoever made it
known-data/<name>-….json                           digests of data that a job has read, while they are as they were
"""

import contextlib
import os
from pathlib import Path
from typing import TypeVar

from pairflow.spec import Spec

R = TypeVar("R", bound=Spec)


def read(path: Path, result_type: type[R]) -> R | None:
    """A result that was left here, or None if there is none that this release can use."""
    try:
        return result_type.model_validate_json(path.read_text())
    except (FileNotFoundError, NotADirectoryError, ValueError):  # another release's, or damaged
        return None


def write(path: Path, result: Spec) -> None:
    """Leaves a result, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(result.model_dump_json(indent=1) + "\n")
    partial.replace(path)


def try_to_write(path: Path, result: Spec) -> None:
    """As `write`; where that fails nothing is left, and whoever looks for it does the work again."""
    with contextlib.suppress(OSError):
        write(path, result)
