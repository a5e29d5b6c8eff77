"""Where a trace starts: the nodes that a reference stands for."""

import json
import re
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Run

import storage
from flows import pretrained
from flows.home import references
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
from flows.lineage import tags as tag
from flows.lineage.errors import LineageError
from flows.lineage.search import all_runs, experiment_ids, model_ids_of
from flows.lineage.versions import Versions
from flows.lineage.waiting import or_none
from pairflow.errors import StoreError


@dataclass(frozen=True)
class Starts:
    """What a reference stands for.

    Attributes:
        nodes: their ids.
        digests: of the datasets whose records hold them.
        read: ids of runs and models that must be read, whatever dataset they are of.
    """

    nodes: tuple[str, ...]
    digests: frozenset[str]
    read: tuple[str, ...] = ()


def find(reference: Reference, client: MlflowClient) -> Starts:
    """What `reference` stands for.

    Raises:
        LineageError: nothing, or several things.
        MlflowException: MLflow does not answer.
    """
    by_dataset = experiment_ids(client)
    experiments = list(chain.from_iterable(by_dataset.values()))
    match reference:
        case ModelId(id=model_id):
            return _model(model_id, f"model:{model_id}", client)
        case RegisteredModel(name=name, alias_or_number=alias_or_number):
            return _version(name, alias_or_number, client)
        case PairsUrl(url=url, fingerprint=fingerprint):
            return _pairs(url, fingerprint, experiments, client)
        case CheckpointUrl(fingerprint=fingerprint):
            return _digits(fingerprint, experiments, client)
        case Folder(path=folder):
            return _checkpoint(folder, experiments, client)
        case Digits(text=run_id, may_be_run=True) if (run := or_none(lambda: client.get_run(run_id))) is not None:
            return _run(run)
        case Digits(text=digits):
            return _digits(digits, experiments, client)
        case Pretrained(name=name):
            raise LineageError(
                f"pretrained:{name} comes with PairFlow, so no history of yours has what made it: its page says, "
                f"{pretrained.folder(name) / 'README.md'}"
            )
        case Other(text=name) if name in by_dataset:
            return _dataset(name, by_dataset[name], client)
        case Other(text=text):
            raise LineageError(f"nothing is known of {text!r}; expected {references.ANYTHING}")


def _dataset(name: str, experiments: list[str], client: MlflowClient) -> Starts:
    digests = {run.data.tags.get(tag.DATASET_DIGEST) for run in all_runs(client, experiments, "")}
    known = frozenset(each for each in digests if each)
    if not known:
        raise LineageError(f"MLflow has no run yet that used the dataset {name!r}; `pairflow pair` makes one")
    return Starts(tuple(f"dataset:{each}" for each in sorted(known)), known)


def _model(model_id: str, start: str, client: MlflowClient) -> Starts:
    model = or_none(lambda: client.get_logged_model(model_id))
    if model is None:
        raise LineageError(f"MLflow has no model {model_id}: correct the id, or MLFLOW_TRACKING_URI")
    digest = model.tags.get(tag.DATASET_DIGEST)
    return Starts((start,), frozenset({digest} if digest else ()), (model_id,))


def _version(name: str, alias_or_number: str, client: MlflowClient) -> Starts:
    found = Versions(client).at(name, alias_or_number)
    start = f"version:{found.name}/{found.number}"
    if found.model_id:
        return _model(found.model_id, start, client)
    run = or_none(lambda: client.get_run(found.run_id)) if found.run_id else None
    if run is None:
        raise LineageError(f"{name} version {found.number} names neither a logged model nor a run: it is not ours")
    return replace(_run(run), nodes=(start,))


def _run(run: Run) -> Starts:
    run_id, tags = str(run.info.run_id), run.data.tags
    if tag.STAGE not in tags:
        raise LineageError(f"the MLflow run {run_id} is none of PairFlow's; expected {references.ANYTHING}")
    digest = tags.get(tag.DATASET_DIGEST)
    return Starts((f"run:{run_id}",), frozenset({digest} if digest else ()), (run_id,))


def _pairs(url: str, fingerprint: str, experiments: list[str], client: MlflowClient) -> Starts:
    known = all_runs(client, experiments, f"tags.`{tag.PAIRS_FINGERPRINT}` = '{fingerprint}'")
    digest = next((run.data.tags.get(tag.DATASET_DIGEST) for run in known), None)
    if digest is None:
        try:
            digest = str(storage.read_header(url).dataset["digest"])
        except (StoreError, KeyError) as error:
            raise LineageError(f"neither MLflow nor the store knows the pairs {url}: {error}") from None
    return Starts((f"pairs:{fingerprint}",), frozenset({digest}))


def _checkpoint(folder: Path, experiments: list[str], client: MlflowClient) -> Starts:
    """The model of a checkpoint, or the training that it is an earlier step of."""
    states = [folder / "state.json", *sorted(folder.glob("step-*/state.json"), reverse=True)]
    states += sorted(folder.glob("checkpoints/step-*/state.json"), reverse=True)
    state = next((path for path in states if path.is_file()), None)
    if state is None:
        raise LineageError(
            f"no checkpoint in {folder}: expected a step-N folder, or a folder of them; or {references.ANYTHING}"
        )
    try:
        sha256 = str(json.loads(state.read_bytes())["sha256"])
    except (ValueError, KeyError, TypeError) as error:
        raise LineageError(f"{state} is damaged: {error!r}; name another checkpoint, or the training's run") from None
    names = [state.absolute().parents[each].name for each in (0, 1, 2) if len(state.absolute().parents) > each]
    wanted = [(tag.CHECKPOINT_SHA256, sha256), *((tag.FINGERPRINT, name) for name in names)]
    for known_by, value in wanted:
        if re.fullmatch("[0-9a-f]{64}", value):
            for run in all_runs(client, experiments, f"tags.`{known_by}` = '{value}'"):
                if run.data.tags.get(tag.STAGE) in ("train", "distill"):
                    return _made_by(run)
    raise LineageError(
        f"MLflow knows no training of the checkpoint {state.parent} (SHA-256 {sha256}): it was trained without MLflow, "
        "or with another one; correct MLFLOW_TRACKING_URI"
    )


def _made_by(run: Run) -> Starts:
    """The model of a training, or, if it has none yet, the run."""
    found = _run(run)
    made = model_ids_of(run)
    return Starts(tuple(f"model:{each}" for each in made), found.digests, found.read) if made else found


def _digits(prefix: str, experiments: list[str], client: MlflowClient) -> Starts:
    """The one thing whose digest or fingerprint begins so."""
    found: dict[str, Starts] = {}
    kinds = {tag.DATASET_DIGEST: "dataset", tag.PAIRS_FINGERPRINT: "pairs", tag.FINGERPRINT: "run"}
    for known_by, kind in kinds.items():
        for run in all_runs(client, experiments, f"tags.`{known_by}` LIKE '{prefix}%'"):
            value, stage = run.data.tags[known_by], run.data.tags.get(tag.STAGE)
            if run.info.lifecycle_stage == "deleted" or (kind == "run" and stage == "pair"):
                continue  # the fingerprint of a pairing is that of its pairs
            digest = run.data.tags.get(tag.DATASET_DIGEST, "")
            if kind == "run":
                found.setdefault(value, _made_by(run))
            else:
                found.setdefault(value, Starts((f"{kind}:{value}",), frozenset({digest})))
    if not found:
        raise LineageError(
            f"MLflow knows no dataset, pairs, training or run {prefix!r}; expected {references.ANYTHING}"
        )
    if len(found) > 1:
        some = ", ".join(value[: len(prefix) + 6] for value in sorted(found)[:8])
        raise LineageError(f"'{prefix}' stands for {len(found)} things: {some}; give more digits")
    return next(iter(found.values()))
