"""The models of an evaluation: those of methods, made with its settings, and any others by reference."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from flows.home import kept_results
from flows.home.references import CheckpointUrl, Folder, Pretrained, RegisteredModel
from flows.home.references import parse as parse_reference
from flows.home.settings import Settings
from flows.jobs.known_data import DataFacts
from flows.lineage import tags as tag
from flows.lineage.models import FoundModel, resolve
from flows.recipes import methods
from flows.recipes.methods import METHODS, Method
from flows.results import TrainResult
from pairflow.checkpoint_files import read_state
from pairflow.data_card import DataCard
from pairflow.errors import CheckpointError, SpecError
from pairflow.spec import TrainingSpec, parse

_DIGITS = 12  # of a fingerprint or a model's id, where people read it


@dataclass(frozen=True)
class Contestant:
    """A model that is scored.

    Attributes:
        label: for tables and figures; models of one method and several training seeds share it, no others do.
        reference: how it was named; None if a method and the settings name it.
        method: that made it.
        training_seed: of its training.
        checkpoint: where it is kept, a path or a URL.
        sha256: of its tensors.
        origin: tags of what it was made from, as far as it is known.
    """

    label: str
    reference: str | None
    method: str
    training_seed: int
    checkpoint: str
    sha256: str
    mlflow_model_id: str | None
    training_fingerprint: str | None
    origin: Mapping[str, str]

    @classmethod
    def of(cls, trained: TrainResult) -> "Contestant":
        """The model that a training of these settings left."""
        return cls(
            label=METHODS[trained.method].label,
            reference=None,
            method=trained.method,
            training_seed=trained.training_seed,
            checkpoint=trained.checkpoint,
            sha256=trained.checkpoint_sha256,
            mlflow_model_id=trained.mlflow_model_id,
            training_fingerprint=trained.fingerprint,
            origin={
                tag.DATASET_DIGEST: trained.dataset_digest,
                tag.TRAINING_FINGERPRINT: trained.fingerprint,
                tag.TRAINING_RUN: trained.mlflow_run_id,
                **({tag.PAIRS_FINGERPRINT: trained.pairs_fingerprint} if trained.pairs_fingerprint else {}),
            },
        )


def by_reference(
    references: Sequence[str],
    data: DataFacts,
    settings: Settings,
    logged_tags: Callable[[str], Mapping[str, str]],
) -> tuple[Contestant, ...]:
    """The models that references stand for, each reference once.

    Args:
        references: see `flows.lineage.models.resolve`.
        data: that they are measured on.
        settings: where to look.
        logged_tags: MLflow model id -> that model's tags.

    Raises:
        CheckpointError: a reference stands for no model, for a damaged one, or nobody can say what method made it.
        LineageError: MLflow does not hold it.
        SpecError: a model is of another vocabulary, length or kind of data.
    """
    found: list[Contestant] = []
    for reference in dict.fromkeys(references):
        model = resolve(reference, settings)
        state = read_state(model.checkpoint)
        check_fits(reference, model, state, data)
        contestant = _described(reference, model, state, logged_tags)
        alike = sum(each.label.startswith(contestant.label) for each in found)
        found.append(replace(contestant, label=f"{contestant.label} #{alike + 1}") if alike else contestant)
    return tuple(found)


def check_fits(reference: str, model: FoundModel, state: Mapping[str, Any], data: DataFacts) -> None:
    """A model must speak the data's language.

    Raises:
        SpecError: the first thing that differs; the message names the model and the data.
    """
    train = data.train
    shape = state.get("image_shape")
    same: list[tuple[str, object, object]] = [
        ("vocab_size", state.get("vocab_size"), train.vocab_size),
        ("length", state.get("length"), train.length),
        ("image_shape", None if shape is None else tuple(shape), train.image_shape),
    ]
    card = DataCard.read(model.checkpoint)
    if card is not None:
        same.append(("kind of data", card.kind, train.kind))
    for name, got, expected in same:
        if got != expected:
            raise SpecError(
                f"the model '{reference}' ({model.place}) cannot be measured on {train.name}: its {name} is "
                f"{got}, that of the data is {expected}; choose data like those it was trained on, or another model"
            )
    vocab = train.tokens
    if card is not None and card.vocab != vocab:
        raise SpecError(
            f"the model '{reference}' ({model.place}) cannot be measured on {train.name}: both have "
            f"{train.vocab_size} tokens, but not the same ones ({_first_difference(card.vocab, vocab)}); choose data "
            "of the vocabulary that it was trained on, or another model"
        )


def _first_difference(model: Sequence[str] | None, data: Sequence[str] | None) -> str:
    if model is None or data is None:
        return f"only the {'data' if model is None else 'model'} has words for them"
    place = next(place for place, pair in enumerate(zip(model, data, strict=True)) if pair[0] != pair[1])
    return f"token {place} is {model[place]!r} to the model and {data[place]!r} in the data"


def _described(
    reference: str, model: FoundModel, state: Mapping[str, Any], logged_tags: Callable[[str], Mapping[str, str]]
) -> Contestant:
    """What is known of a model: from the training that left it here, from MLflow, or from the checkpoint alone."""
    trained = kept_results.read(model.checkpoint.parent.parent / "result.json", TrainResult)
    if trained is not None and trained.checkpoint_sha256 == model.sha256:
        found = Contestant.of(trained)
    else:
        tags = {} if model.mlflow_model_id is None else logged_tags(model.mlflow_model_id)
        method = _method(tags, state, model)
        names = {tag.DATASET_DIGEST: tag.DATASET_DIGEST, tag.FINGERPRINT: tag.TRAINING_FINGERPRINT}
        found = Contestant(
            label=method.label,
            reference=None,
            method=method.name,
            training_seed=int(tags.get(tag.TRAINING_SEED) or _seed(state)),
            checkpoint=model.place,
            sha256=model.sha256,
            mlflow_model_id=model.mlflow_model_id,
            training_fingerprint=tags.get(tag.FINGERPRINT),
            origin={ours: tags[name] for name, ours in names.items() if name in tags},
        )
    return replace(found, reference=reference, label=f"{found.label} ({_short(reference, model)})")


def _method(tags: Mapping[str, str], state: Mapping[str, Any], model: FoundModel) -> Method:
    """Which method made a model.

    Raises:
        CheckpointError: its checkpoint does not say, and nothing else is known of it.
    """
    if (named := tags.get(tag.METHOD) or state.get("method")) is not None:  # an exported model's settings have it
        try:
            return methods.find(str(named))
        except SpecError as error:
            raise CheckpointError(f"the model at {model.place}: {error}; another release made it") from None
    refinements = (each.refinement for each in METHODS.values() if each.refinement is not None)
    made_by = next((each for each in refinements if each.made(state)), None)
    if made_by is None and state.get("initial_sha256") is not None:
        raise CheckpointError(
            f"the model at {model.place} was trained further from another one, and its checkpoint does not say by "
            "which method that was made; name it by its training's fingerprint or its MLflow model id"
        )
    try:
        training = parse(TrainingSpec, state.get("training"))
    except SpecError as error:
        raise CheckpointError(f"checkpoint {model.place}: its state describes no training: {error}") from None
    plain = next(each for each in METHODS.values() if each.refinement is None and each.may_have_trained(training))
    return plain if made_by is None else methods.find(f"{plain.name}+{made_by.name}")


def _seed(state: Mapping[str, Any]) -> int:
    spec = state.get("distillation") or state.get("training") or {}
    return int(spec.get("seed", 0))


def _short(reference: str, model: FoundModel) -> str:
    """A reference as a label can bear it."""
    match parse_reference(reference):
        case Folder() | CheckpointUrl():
            folder = model.checkpoint.parent
            run = folder.parent if folder.name == "checkpoints" else folder
            return f"{run.name[:_DIGITS]}/{model.checkpoint.name}"
        case Pretrained():
            return reference
        case RegisteredModel():
            return reference.removeprefix("models:/")
    return reference.removeprefix("models:/")[:_DIGITS]
