"""What may be installed or lie on disk beside the metrics that are always there: asked for without loading torch."""

import importlib.metadata
import importlib.util
import os
from pathlib import Path

from pairflow.paths import user_path

CHEMNET = "fcd"
"""Package that holds ChemNet and its weights."""
INCEPTION = "pt_inception-2015-12-05-6726825d.pth"
"""Name of Inception's weights in the data folder; it ends with the first digits of their SHA-256."""


def chemnet_release() -> str | None:
    """Which release of ChemNet's package is installed, if any."""
    return importlib.metadata.version(CHEMNET) if importlib.util.find_spec(CHEMNET) is not None else None


def inception_weights(data_dir: Path | None = None) -> Path | None:
    """The file of weights where it lies in the data folder; $PAIRFLOW_DATA_DIR by default, read now."""
    folder = data_dir or os.environ.get("PAIRFLOW_DATA_DIR")
    path = None if not folder else user_path(folder, "the data folder") / INCEPTION
    return path if path is not None and path.is_file() else None
