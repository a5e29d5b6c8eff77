"""A trained model by reference, to be sampled, refined, measured or registered."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flows import pretrained, references
from flows.home import kept_results
from flows.home.settings import Settings
from flows.references import Digits, Folder, ModelId, Other, PairsUrl, Pretrained, Reference, RegisteredModel
from flows.results import TrainResult
from pairflow import checkpoint_files
from pairflow.errors import CheckpointError


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
        return cls(checkpoint, str(checkpoint_files.read_state(checkpoint).get("sha256")), mlflow_model_id)

    @classmethod
    def of(cls, trained: TrainResult) -> "FoundModel":
        """The model that a training left."""
        return cls(Path(trained.checkpoint), trained.checkpoint_sha256, trained.mlflow_model_id)


def resolve(reference: str, settings: Settings) -> FoundModel:
    """The model that a reference stands for: in a folder, of a training under PAIRFLOW_HOME/runs, one of MLflow's, or
    one that comes with PairFlow.

    Raises:
        CheckpointError: there is none, or several, or it is not finished, or its state is damaged.
        LineageError: MLflow does not hold it.
    """
    match references.parse(reference):
        case ModelId(id=model_id):
            return _logged(model_id, settings)
        case RegisteredModel() as registered:
            return _logged(_registered(registered, settings), settings)
        case Pretrained(name=name):
            return FoundModel.at(pretrained.folder(name))
        case Folder(path=folder):
            return _known(_checkpoint(folder))
        case Digits() as digits:
            return _by_digits(digits, settings)
        case other:
            raise _no_model(reference, other)


def for_job(reference: str) -> str:
    """A reference to a model as a job reads it, which runs in another working directory and perhaps on another machine.

    Raises:
        CheckpointError: it stands for no model, wherever it is read.
    """
    parsed = references.parse(reference)
    if isinstance(parsed, Pretrained):
        pretrained.folder(parsed.name)
    if isinstance(parsed, PairsUrl) or (isinstance(parsed, Other) and not parsed.may_be_path):
        raise _no_model(reference, parsed)
    return references.absolute(reference)


def _no_model(reference: str, parsed: Reference) -> CheckpointError:
    why = "there is no such folder" if isinstance(parsed, Other) else f"this is {parsed.what}"
    return CheckpointError(
        f"no model '{reference}': {why}; expected {references.MODEL}. `pairflow train` prints the folder, its --json "
        "the others"
    )


def _by_digits(digits: Digits, settings: Settings) -> FoundModel:
    """The model of a training of this home, or else of a run that MLflow has."""
    found = sorted(path for path in settings.runs_dir.glob(f"{digits.text}*") if path.is_dir())
    if not found and digits.may_be_run and (model_id := _made_by(digits.text, settings)) is not None:
        return _logged(model_id, settings)
    return _known(_trained(digits.text, found, settings.runs_dir))


def _registered(registered: RegisteredModel, settings: Settings) -> str:
    """The id of the logged model that a version of a registered one is."""
    from flows.lineage.registry import Registry
    from flows.lineage.tracking import Lineage

    version = Registry(Lineage(settings)).at(registered.name, registered.alias_or_number)
    if not version.model_id:
        raise CheckpointError(
            f"{version.name} version {version.number} is no logged model of MLflow's; register one that is"
        )
    return version.model_id


def _made_by(run_id: str, settings: Settings) -> str | None:
    """The id of the logged model that a run of MLflow's made, if there are such a run and such a model."""
    if not settings.has_history:
        return None
    from flows.lineage.tracking import Lineage

    return Lineage(settings).model_made_by(run_id)


def _logged(model_id: str, settings: Settings) -> FoundModel:
    from flows.lineage.tracking import Lineage

    folder = Lineage(settings).fetch_model(model_id, settings.home / "models")
    return FoundModel.at(_checkpoint(folder), model_id)


def _trained(prefix: str, found: Sequence[Path], folder: Path) -> Path:
    """The finished checkpoint of the one training whose fingerprint begins so."""
    if not found:
        raise CheckpointError(
            f"no model '{prefix}': no training under {folder} has that fingerprint; expected {references.MODEL}"
        )
    if len(found) > 1:
        names = ", ".join(path.name[: len(prefix) + 6] for path in found)
        raise CheckpointError(f"'{prefix}' stands for {len(found)} trainings under {folder}: {names}; give more digits")
    if not (found[0] / "result.json").is_file():
        raise CheckpointError(
            f"the training {found[0]} is not finished; run it again to finish it, or name a folder in its checkpoints/"
        )
    return _checkpoint(found[0])


def _checkpoint(folder: Path) -> Path:
    """The checkpoint that a folder is or holds: an exported one, one of a run's, or an MLflow model's."""
    if checkpoint_files.is_checkpoint(folder):
        return folder
    for parent in (folder, folder / "checkpoints", folder / "artifacts"):
        if (last := checkpoint_files.latest(parent)) is not None:
            return last
    raise CheckpointError(f"no checkpoint at {folder}: expected a step-N folder, or a folder of them")


def _known(checkpoint: Path) -> FoundModel:
    """The model in a folder, with its MLflow id if it is a training's result."""
    trained = kept_results.read(checkpoint.parent.parent / "result.json", TrainResult)
    if trained is not None and Path(trained.checkpoint).name == checkpoint.name:
        return FoundModel.at(checkpoint, trained.mlflow_model_id)
    return FoundModel.at(checkpoint)
