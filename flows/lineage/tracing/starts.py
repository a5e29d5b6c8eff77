"""What `pairflow lineage REF` may be given, and which nodes of a chain that stands for."""

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Run

import storage
from flows.lineage.errors import LineageError
from flows.lineage.search import all_runs, experiment_ids
from flows.lineage.versions import Versions
from flows.lineage.waiting import or_none
from pairflow.errors import StoreError

_MODEL = re.compile(r"(?:models:/)?(m-[0-9a-f]{32})")
_VERSION = re.compile(r"(?:models:/)?([\w.-]+)(?:@([\w.-]+)|/([0-9]+))")
_RUN = re.compile(r"[0-9a-f]{32}")
_HEX = re.compile(r"[0-9a-f]{6,64}")
_PAIRS_URL = re.compile(r".*/pairs/([0-9a-f]{64})\.(?:zarr|parquet)/?", re.DOTALL)
EXPECTED = (
    "expected an MLflow model id m-…, a run's id, a registered model pairflow-NAME@ALIAS or pairflow-NAME/VERSION, the "
    "URL or fingerprint of pairs, a dataset's name or digest, a training's fingerprint (or the first digits of one, 6 "
    "or more), or a checkpoint's folder"
)


@dataclass(frozen=True)
class Reference:
    """What a reference stands for.

    Attributes:
        starts: ids of nodes.
        digests: of the datasets whose records hold them.
        read: ids of runs and models that must be read, whatever dataset they are of.
    """

    starts: tuple[str, ...]
    digests: frozenset[str]
    read: tuple[str, ...] = ()


def find(reference: str, client: MlflowClient) -> Reference:
    """What `reference` stands for.

    Raises:
        LineageError: nothing, or several things.
        MlflowException: MLflow does not answer.
    """
    experiments = experiment_ids(client)
    if reference in experiments:
        return _dataset(reference, experiments[reference], client)
    if match := _MODEL.fullmatch(reference):
        return _model(match[1], f"model:{match[1]}", client)
    if match := _PAIRS_URL.fullmatch(reference):
        return _pairs(reference, match[1], list(experiments.values()), client)
    folder = Path(reference).expanduser()
    if folder.is_dir():
        return _checkpoint(folder, list(experiments.values()), client)
    if match := _VERSION.fullmatch(reference):
        return _version(match[1], match[2] or match[3], client)
    if _RUN.fullmatch(reference) and (run := or_none(lambda: client.get_run(reference))) is not None:
        return _run(run)
    if _HEX.fullmatch(reference):
        return _digits(reference, list(experiments.values()), client)
    raise LineageError(f"nothing is known of {reference!r}; {EXPECTED}")


def _dataset(name: str, experiment_id: str, client: MlflowClient) -> Reference:
    digests = {run.data.tags.get("pairflow.dataset_digest") for run in all_runs(client, [experiment_id], "")}
    known = frozenset(each for each in digests if each)
    if not known:
        raise LineageError(f"MLflow has no run yet that used the dataset {name!r}; `pairflow pair` makes one")
    return Reference(tuple(f"dataset:{each}" for each in sorted(known)), known)


def _model(model_id: str, start: str, client: MlflowClient) -> Reference:
    model = or_none(lambda: client.get_logged_model(model_id))
    if model is None:
        raise LineageError(f"MLflow has no model {model_id}: correct the id, or MLFLOW_TRACKING_URI")
    digest = model.tags.get("pairflow.dataset_digest")
    return Reference((start,), frozenset({digest} if digest else ()), (model_id,))


def _version(name: str, alias_or_number: str, client: MlflowClient) -> Reference:
    found = Versions(client).at(name, alias_or_number)
    start = f"version:{found.name}/{found.number}"
    if found.model_id:
        return _model(found.model_id, start, client)
    run = or_none(lambda: client.get_run(found.run_id)) if found.run_id else None
    if run is None:
        raise LineageError(f"{name} version {found.number} names neither a logged model nor a run: it is not ours")
    return replace(_run(run), starts=(start,))


def _run(run: Run) -> Reference:
    run_id, tags = str(run.info.run_id), run.data.tags
    if "pairflow.stage" not in tags:
        raise LineageError(f"the MLflow run {run_id} is none of PairFlow's; {EXPECTED}")
    digest = tags.get("pairflow.dataset_digest")
    return Reference((f"run:{run_id}",), frozenset({digest} if digest else ()), (run_id,))


def _pairs(url: str, fingerprint: str, experiments: list[str], client: MlflowClient) -> Reference:
    known = all_runs(client, experiments, f"tags.`pairflow.pairs_fingerprint` = '{fingerprint}'")
    digest = next((run.data.tags.get("pairflow.dataset_digest") for run in known), None)
    if digest is None:
        try:
            digest = str(storage.read_header(url).dataset["digest"])
        except (StoreError, KeyError) as error:
            raise LineageError(f"neither MLflow nor the store knows the pairs {url}: {error}") from None
    return Reference((f"pairs:{fingerprint}",), frozenset({digest}))


def _checkpoint(folder: Path, experiments: list[str], client: MlflowClient) -> Reference:
    """The model of a checkpoint, or the training that it is an earlier step of."""
    states = [folder / "state.json", *sorted(folder.glob("step-*/state.json"), reverse=True)]
    states += sorted(folder.glob("checkpoints/step-*/state.json"), reverse=True)
    state = next((path for path in states if path.is_file()), None)
    if state is None:
        raise LineageError(f"no checkpoint in {folder}: expected a step-N folder, or a folder of them; or {EXPECTED}")
    try:
        sha256 = str(json.loads(state.read_bytes())["sha256"])
    except (ValueError, KeyError, TypeError) as error:
        raise LineageError(f"{state} is damaged: {error!r}; name another checkpoint, or the training's run") from None
    names = [state.absolute().parents[each].name for each in (0, 1, 2) if len(state.absolute().parents) > each]
    wanted = [("checkpoint_sha256", sha256), *(("fingerprint", name) for name in names)]
    for tag, value in wanted:
        if re.fullmatch("[0-9a-f]{64}", value):
            for run in all_runs(client, experiments, f"tags.`pairflow.{tag}` = '{value}'"):
                if run.data.tags.get("pairflow.stage") in ("train", "distill"):
                    return _made_by(run)
    raise LineageError(
        f"MLflow knows no training of the checkpoint {state.parent} (SHA-256 {sha256}): it was trained without MLflow, "
        "or with another one; correct MLFLOW_TRACKING_URI"
    )


def _made_by(run: Run) -> Reference:
    """The model of a training, or, if it has none yet, the run."""
    found = _run(run)
    made = [each.model_id for each in (run.outputs.model_outputs if run.outputs else [])]
    return Reference(tuple(f"model:{each}" for each in made), found.digests, found.read) if made else found


def _digits(prefix: str, experiments: list[str], client: MlflowClient) -> Reference:
    """The one thing whose digest or fingerprint begins so."""
    found: dict[str, Reference] = {}
    for tag, kind in (("dataset_digest", "dataset"), ("pairs_fingerprint", "pairs"), ("fingerprint", "run")):
        for run in all_runs(client, experiments, f"tags.`pairflow.{tag}` LIKE '{prefix}%'"):
            value, stage = run.data.tags[f"pairflow.{tag}"], run.data.tags.get("pairflow.stage")
            if run.info.lifecycle_stage == "deleted" or (kind == "run" and stage == "pair"):
                continue  # the fingerprint of a pairing is that of its pairs
            digest = run.data.tags.get("pairflow.dataset_digest", "")
            if kind == "run":
                found.setdefault(value, _made_by(run))
            else:
                found.setdefault(value, Reference((f"{kind}:{value}",), frozenset({digest})))
    if not found:
        raise LineageError(f"MLflow knows no dataset, pairs, training or run {prefix!r}; {EXPECTED}")
    if len(found) > 1:
        some = ", ".join(value[: len(prefix) + 6] for value in sorted(found)[:8])
        raise LineageError(f"'{prefix}' stands for {len(found)} things: {some}; give more digits")
    return next(iter(found.values()))
