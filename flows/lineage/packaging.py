"""A checkpoint as an MLflow model: weights and JSON, the library that samples from them, and what that needs.

<model>/MLmodel, requirements.txt, input_example.json, …    MLflow's own
<model>/model_code.py                                       what MLflow runs
<model>/code/pairflow/                                      the library as it was
<model>/artifacts/step-N/                                   tensors.safetensors, state.json, data.json
"""

import logging
import shutil
from importlib.metadata import version
from pathlib import Path

import numpy as np
from mlflow.models import Model, ModelSignature
from mlflow.pyfunc import save_model
from mlflow.types import ColSpec, DataType, Schema, TensorSpec

import pairflow
from pairflow.checkpoint import read_state
from pairflow.data_card import DataCard

# What sampling imports; a test holds it to that. The index of pip decides whether torch is built for CUDA.
_REQUIREMENTS = ("mlflow", "numpy", "pandas", "pydantic", "safetensors", "torch", "tqdm")
_EXAMPLE = {"n": 2, "steps": 2, "seed": 0}
_REQUEST = Schema(
    [
        # None of the three has a default: MLflow drops names that it does not know, so that a misspelled one would
        # be ignored in silence.
        ColSpec(DataType.long, "n"),
        ColSpec(DataType.long, "steps"),
        ColSpec(DataType.long, "seed"),
        ColSpec(DataType.string, "final_step", required=False),
        ColSpec(DataType.double, "top_p", required=False),
    ]
)


def package(checkpoint: Path, folder: Path, *, model_id: str, run_id: str, artifact_path: str) -> None:
    """Writes an MLflow model to `folder`, which is made.

    Args:
        checkpoint: a step-N folder.
        folder: where to.
        model_id: of the logged model that it is to be.
        run_id: of the run that made it.
        artifact_path: where MLflow will keep it.

    Raises:
        CheckpointError: the state cannot be read.
    """
    for noisy in ("mlflow.pyfunc", "mlflow.models.model"):  # they tell what is said in the calls below
        logging.getLogger(noisy).setLevel(logging.WARNING)
    save_model(
        str(folder),
        python_model=str(Path(__file__).with_name("model_code.py")),
        code_paths=[str(Path(pairflow.__file__).parent)],
        artifacts={"checkpoint": str(checkpoint)},
        signature=ModelSignature(inputs=_REQUEST, outputs=_answer(checkpoint)),
        input_example=_EXAMPLE,
        pip_requirements=[f"{name}=={version(name).partition('+')[0]}" for name in _REQUIREMENTS],
        mlflow_model=Model(artifact_path=artifact_path, run_id=run_id, model_id=model_id),
    )
    for compiled in folder.rglob("__pycache__"):  # of model_code.py, which MLflow has just run
        shutil.rmtree(compiled)


def _answer(checkpoint: Path) -> Schema:
    """What a model returns, by the checkpoint's state and card."""
    state, card = read_state(checkpoint), DataCard.read(checkpoint)
    if card is not None and card.kind == "molecules" and card.vocab is not None:
        return Schema([ColSpec(DataType.string, "smiles")])
    if state["image_shape"] is not None:
        channels, *size = state["image_shape"]
        return Schema([TensorSpec(np.dtype(np.uint8), (-1, *size) if channels == 1 else (-1, *size, channels))])
    return Schema([TensorSpec(np.min_scalar_type(state["vocab_size"] - 1), (-1, state["length"]))])
