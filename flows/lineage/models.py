"""A trained model by reference, to be sampled, refined, measured or registered."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import storage
from flows import pretrained
from flows.home import kept_results, references
from flows.home.kept_checkpoints import Checkpoints
from flows.home.kept_results import KeptFolder
from flows.home.references import (
    CheckpointUrl,
    Digits,
    Folder,
    ModelId,
    Other,
    PairsUrl,
    Pretrained,
    Reference,
    RegisteredModel,
)
from flows.home.settings import Settings
from flows.results import TrainResult
from pairflow import checkpoint_files
from pairflow.errors import CheckpointError


@dataclass(frozen=True)
class FoundModel:
    """A model that a reference stands for.

    Attributes:
        checkpoint: its step-N folder on this disk.
        sha256: of its tensors, as its state says.
        mlflow_model_id: its id in MLflow, where it is known.
        place: where it is kept, which other machines may find: that folder, or a URL.
    """

    checkpoint: Path
    sha256: str
    mlflow_model_id: str | None
    place: str

    @classmethod
    def at(cls, checkpoint: Path, mlflow_model_id: str | None = None) -> "FoundModel":
        """The model in a step-N folder.

        Raises:
            CheckpointError: its state cannot be read.
        """
        sha256 = str(checkpoint_files.read_state(checkpoint).get("sha256"))
        return cls(checkpoint, sha256, mlflow_model_id, str(checkpoint))

    @classmethod
    def of(cls, trained: TrainResult, settings: Settings) -> "FoundModel":
        """The model that a training left.

        Raises:
            CheckpointError: it is kept in the store, and is not whole there.
        """
        folder = on_this_disk(trained.checkpoint, settings)
        return cls(folder, trained.checkpoint_sha256, trained.mlflow_model_id, trained.checkpoint)


def on_this_disk(place: str, settings: Settings) -> Path:
    """The folder of a checkpoint by where it is kept; one of the store is copied to this disk.

    Raises:
        CheckpointError: it is kept in the store, and is not whole there.
    """
    match references.parse(place):
        case CheckpointUrl() as url:
            return _at_url(url, settings).checkpoint
    return Path(place)


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
        case CheckpointUrl() as url:
            return _at_url(url, settings)
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
    runs = KeptFolder.at(settings.runs_dir, settings)
    found = [each for each in storage.list_names(runs.place()) if each.startswith(digits.text)]
    if not found and digits.may_be_run and (model_id := _made_by(digits.text, settings)) is not None:
        return _logged(model_id, settings)
    run = _trained(digits.text, found, runs)
    if run.url is None:
        return _known(_checkpoint(run.here))
    return _in_store(run, None)


def _at_url(url: CheckpointUrl, settings: Settings) -> FoundModel:
    """A copy of a checkpoint of a store, that of these settings or another."""
    return _in_store(KeptFolder(settings.runs_dir / url.fingerprint, url.run_url), url.step)


def _in_store(run: KeptFolder, step: int | None) -> FoundModel:
    """A copy of a training's checkpoint, the last one if no step is said, with what else is known of the model."""
    checkpoints = Checkpoints(run)
    if step is None:
        if (last := checkpoints.latest_in_store()) is None:
            raise CheckpointError(f"no checkpoint at {run.place()}; run the training again to finish it")
        step = last
    folder = checkpoints.bring(step)
    run.fetch("result.json")
    return replace(_known(folder), place=checkpoints.place(step))


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


def _trained(prefix: str, found: Sequence[str], runs: KeptFolder) -> KeptFolder:
    """The folder of the one finished training whose fingerprint begins so."""
    if not found:
        raise CheckpointError(
            f"no model '{prefix}': no training under {runs.place()} has that fingerprint; expected {references.MODEL}"
        )
    if len(found) > 1:
        names = ", ".join(each[: len(prefix) + 6] for each in sorted(found))
        raise CheckpointError(
            f"'{prefix}' stands for {len(found)} trainings under {runs.place()}: {names}; give more digits"
        )
    run = runs.below(found[0])
    if not run.has("result.json"):
        raise CheckpointError(
            f"the training {run.place()} is not finished; run it again to finish it, or name a folder in its "
            "checkpoints/"
        )
    return run


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
