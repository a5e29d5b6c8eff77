"""A trained model by reference: the one place where references are resolved."""

import re
from dataclasses import dataclass
from pathlib import Path

from flows.home import kept_results
from flows.home.settings import Settings
from flows.results import TrainResult
from pairflow.errors import CheckpointError

_MLFLOW_ID = re.compile(r"(?:models:/)?(m-[0-9a-f]{32})")
_REGISTERED = re.compile(r"(?:models:/)?([A-Za-z0-9][A-Za-z0-9._-]*)(?:@([A-Za-z0-9._-]+)|/([0-9]{1,9}))")
_FINGERPRINT = re.compile(r"[0-9a-f]{6,64}")
_EXPECTED = (
    "expected a checkpoint's folder, a training's fingerprint (or its first digits, 6 or more), an id in MLflow, m-…, "
    "or a registered model, such as pairflow-qm9@champion or pairflow-qm9/3; `pairflow train` prints the folder, its "
    "--json the others"
)


@dataclass(frozen=True)
class FoundModel:
    """A model that a reference stands for.

    Attributes:
        checkpoint: its step-N folder.
        sha256: of its tensors, as its state says.
        mlflow_model_id: its id in MLflow, where it is known.
    """

    checkpoint: Path
    sha256: str
    mlflow_model_id: str | None

    @classmethod
    def at(cls, checkpoint: Path, mlflow_model_id: str | None = None) -> "FoundModel":
        """The model in a step-N folder.

        Raises:
            CheckpointError: its state cannot be read.
        """
        from pairflow.checkpoint import read_state

        return cls(checkpoint, str(read_state(checkpoint).get("sha256")), mlflow_model_id)

    @classmethod
    def of(cls, trained: TrainResult) -> "FoundModel":
        """The model that a training left."""
        return cls(Path(trained.checkpoint), trained.checkpoint_sha256, trained.mlflow_model_id)


def resolve(reference: str, settings: Settings) -> FoundModel:
    """The model that `reference` stands for: a folder, a fingerprint under PAIRFLOW_HOME/runs, or one that MLflow has.

    MLflow's are ids m-…, and versions of registered models by alias or number; `models:/` before either is allowed.

    Raises:
        CheckpointError: there is none, or several, or it is not finished, or its state is damaged.
        LineageError: MLflow does not hold it.
    """
    if match := _MLFLOW_ID.fullmatch(reference):
        return _logged(match[1], settings)
    folder = Path(reference).expanduser()
    if folder.is_dir():
        return _known(_checkpoint(folder))
    if match := _REGISTERED.fullmatch(reference):
        return _logged(_registered(match[1], match[2] or match[3], settings), settings)
    if _FINGERPRINT.fullmatch(reference):
        return _known(_trained(reference, settings.runs_dir))
    raise CheckpointError(f"no model '{reference}': there is no such folder; {_EXPECTED}")


def _registered(name: str, alias_or_number: str, settings: Settings) -> str:
    """The id of the logged model that a version of a registered one is."""
    from flows.lineage.registry import Registry
    from flows.lineage.tracking import Lineage

    version = Registry(Lineage(settings)).at(name, alias_or_number)
    if not version.model_id:
        raise CheckpointError(f"{name} version {version.number} is no logged model of MLflow's; register one that is")
    return version.model_id


def _logged(model_id: str, settings: Settings) -> FoundModel:
    from flows.lineage.tracking import Lineage

    folder = Lineage(settings).fetch_model(model_id, settings.home / "models")
    return FoundModel.at(_checkpoint(folder), model_id)


def _trained(prefix: str, folder: Path) -> Path:
    """The finished checkpoint of the one training whose fingerprint begins so."""
    found = sorted(path for path in folder.glob(f"{prefix}*") if path.is_dir())
    if not found:
        raise CheckpointError(f"no model '{prefix}': no training under {folder} has that fingerprint; {_EXPECTED}")
    if len(found) > 1:
        names = ", ".join(path.name[: len(prefix) + 6] for path in found)
        raise CheckpointError(f"'{prefix}' stands for {len(found)} trainings under {folder}: {names}; give more digits")
    if not (found[0] / "result.json").is_file():
        raise CheckpointError(
            f"the training {found[0]} is not finished; run it again to finish it, or name a folder in its checkpoints/"
        )
    return _checkpoint(found[0])


def _checkpoint(folder: Path) -> Path:
    """The step-N folder that a folder is or holds: of checkpoints, a run's, or an MLflow model's."""
    from pairflow import checkpoint

    if (folder / "state.json").is_file():
        return folder
    for parent in (folder, folder / "checkpoints", folder / "artifacts"):
        if (last := checkpoint.latest(parent)) is not None:
            return last
    raise CheckpointError(f"no checkpoint at {folder}: expected a step-N folder, or a folder of them")


def _known(checkpoint: Path) -> FoundModel:
    """The model in a folder, with its MLflow id if it is a training's result."""
    trained = kept_results.read(checkpoint.parent.parent / "result.json", TrainResult)
    if trained is not None and Path(trained.checkpoint).name == checkpoint.name:
        return FoundModel.at(checkpoint, trained.mlflow_model_id)
    return FoundModel.at(checkpoint)
