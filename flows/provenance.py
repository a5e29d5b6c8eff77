"""What a run is traced by: its inputs, its settings in columns, and the version of the code."""

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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


def code_version() -> dict[str, str]:
    """The git commit of the checkout that this code runs from, if it does."""
    folder = Path(__file__).resolve().parent
    command = ["git", "-C", str(folder), "rev-parse", "HEAD"]
    try:
        commit = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return {}
    return {"mlflow.source.git.commit": commit.stdout.strip()}
