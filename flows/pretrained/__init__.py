"""Weights to try at once, in folders as `pairflow export-model` writes them; benchmarks/gpu_study_scores.py says how.

May import the library's errors alone.
"""

from pathlib import Path

from pairflow.errors import CheckpointError

_FOLDER = Path(__file__).parent


def names() -> tuple[str, ...]:
    """Of the models that are here."""
    return tuple(sorted(path.parent.name for path in _FOLDER.glob("*/config.json")))


def folder(name: str) -> Path:
    """The checkpoint's folder of a model.

    Raises:
        CheckpointError: there is none of that name.
    """
    if name not in names():
        raise CheckpointError(f"no pretrained model '{name}': expected one of {', '.join(names())}, as pretrained:NAME")
    return _FOLDER / name
