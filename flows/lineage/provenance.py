"""What a run is traced by: its inputs, its settings in columns, the version of the code, and the machine."""

import functools
import os
import platform
import shutil
import socket
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from flows.lineage import tags as tag
from pairflow.spec import Spec


@dataclass(frozen=True)
class Input:
    """A dataset or coupled pairs that a run used.

    Attributes:
        name: as people call it.
        digest: full SHA-256, hex.
        role: what the run used it for, such as "training".
        source: where it lies or comes from, by name.
        profile: figures such as the number of rows.
    """

    name: str
    digest: str
    role: str
    source: Mapping[str, str]
    profile: Mapping[str, Any]


EARLIER_PAIRS = "extends"
"""In the `spec` of pairs' header, beside the coupling's own fields: the earlier pairs that were taken over."""


def extended_by(spec: Mapping[str, Any]) -> str | None:
    """Fingerprint of the pairs that those with this `spec` extend; None of a whole coupling."""
    earlier = spec.get(EARLIER_PAIRS)
    return str(earlier["fingerprint"]) if isinstance(earlier, Mapping) else None


def flatten(specs: Mapping[str, Spec]) -> dict[str, str]:
    """`{"training": spec}` as `{"training.num_steps": "50", ...}`: what MLflow can show in columns."""
    flat: dict[str, str] = {}

    def visit(prefix: str, value: Any) -> None:
        if isinstance(value, Mapping):
            for key, inner in value.items():
                visit(f"{prefix}.{key}", inner)
        elif isinstance(value, Sequence) and not isinstance(value, str):
            flat[prefix] = ",".join(map(str, value))
        else:
            flat[prefix] = str(value)

    for key, spec in specs.items():
        visit(key, spec.model_dump(mode="json", exclude_none=True))
    return flat


@functools.cache
def code_version() -> dict[str, str]:
    """The code that runs, as tags of an MLflow run: release, and the commit of the checkout if it runs from one.

    `pairflow.git_dirty` says whether files of that checkout differ from the commit.
    """
    found = {}
    try:
        found[tag.VERSION] = version("pairflow")
    except PackageNotFoundError:  # run from a folder, without having been installed
        found[tag.VERSION] = "not installed"
    # An environment may lie inside a repository of somebody else's, whose commit says nothing of this code.
    if _git("ls-files", "--error-unmatch", Path(__file__).name) is None:
        return found
    commit, changes = _git("rev-parse", "HEAD"), _git("status", "--porcelain", "--untracked-files=no")
    if commit is not None and changes is not None:
        found |= {tag.GIT_COMMIT: commit, tag.GIT_DIRTY: str(bool(changes)).lower()}
    return found


def _git(*arguments: str) -> str | None:
    """What git says about the folder of this code, or None."""
    command = ["git", "-C", str(Path(__file__).resolve().parent), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


@functools.cache
def hardware() -> dict[str, str | int | float]:
    """This machine: `host`, `cpu`, `cores` (that this process may run on), `memory_gib`; `gpus` if it has any."""
    import psutil

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    found: dict[str, str | int | float] = {
        "host": socket.gethostname(),
        "cpu": _cpu_model(),
        "cores": cores,
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
    }
    if gpus := _gpus():
        found["gpus"] = gpus
    return found


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor() or platform.machine())


def _gpus() -> str:
    """The names of NVIDIA's GPUs, as their driver's own program gives them; empty if there are none."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ""
    command = [program, "--query-gpu=name", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return ""
    return ", ".join(line.strip() for line in done.stdout.splitlines() if line.strip())
