"""A logged model loaded back and sampled once, as a stranger would: in a process with none of this code but its own.

Run as a program, `python -I -B trial.py URI` loads the model that MLflow stores there and samples its example.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

_FOREIGN = ("flows", "storage", "prefect", "ray", "zarr")
_TIMEOUT_S = 600  # of a large model on a busy machine; a small one takes seconds


def sample_once(model_id: str, tracking_uri: str) -> None:
    """Loads a logged model and samples its input example.

    Raises:
        LineageError: it cannot be loaded, or gives no samples; with the reason.
    """
    from flows.lineage.errors import LineageError

    command = [sys.executable, "-I", "-B", str(Path(__file__).resolve()), f"models:/{model_id}"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONWARNINGS"}
    environment |= {"MLFLOW_TRACKING_URI": tracking_uri, "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}
    try:
        done = subprocess.run(  # noqa: S603 - our own arguments
            command, env=environment, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise LineageError(f"model {model_id} gave no sample within {_TIMEOUT_S} s; it is not registered") from None
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise LineageError(
            f"model {model_id} cannot be loaded back and sampled, so it is not registered: {said[-1]}; train or "
            "distil it again with this release"
        )


class _Refuse:
    """An importer of this service's own packages that has none of them."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name.partition(".")[0] in _FOREIGN:
            raise ModuleNotFoundError(f"a model must not need {name}")
        return None


def _main(uri: str) -> None:
    sys.meta_path.insert(0, _Refuse())
    import mlflow.pyfunc

    model = mlflow.pyfunc.load_model(uri)
    example = model.input_example
    samples = model.predict(example)
    wanted = int(example["n"].iloc[0] if hasattr(example["n"], "iloc") else example["n"])
    if len(samples) != wanted:
        raise ValueError(f"it gave {len(samples)} samples, expected {wanted}")


if __name__ == "__main__":
    try:
        _main(sys.argv[1])
    except Exception as error:
        sys.exit(f"{type(error).__name__}: {' '.join(str(error).split())}")
