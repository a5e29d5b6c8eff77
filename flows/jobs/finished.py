"""What is finished already: found without a job, from the request, what is known of the data, the store and MLflow.

`find_…` is asked by a flow before it starts a job, and by the command line before it starts anything. It reads no data
set and loads neither torch nor Ray. Its None is no verdict: something is to be done, or only a job can tell. A job
looks again, in its turn, with what else this module has.
"""

import time
from collections.abc import Callable
from typing import TypeVar

import storage
from flows.home.kept_results import KeptFolder
from flows.home.settings import Settings
from flows.jobs import inputs, known_data, prepared_data
from flows.jobs.known_data import DataFacts
from flows.lineage import models, stored_pairs
from flows.lineage.finished_runs import finished_run
from flows.lineage.models import FoundModel
from flows.lineage.provenance import extended_by
from flows.recipes import methods
from flows.recipes.methods import METHODS, Method
from flows.requests import DistillRequest, EvaluateRequest, PairRequest, PrepareRequest, Request, TrainRequest
from flows.results import Found, PairResult, PrepareResult, TrainResult
from pairflow import checkpoint_files
from pairflow.errors import CheckpointError, PairFlowError
from pairflow.spec import CouplingSpec, Spec
from storage import Manifest

R = TypeVar("R", bound=Spec)
Q = TypeVar("Q", bound=Request)


def looked_for(
    run: str, request: Q, settings: Settings, look: Callable[[Q, DataFacts, Settings], tuple[R, str] | None]
) -> Found[R] | None:
    """What `look` finds, where its answer would be a job's too: of jobs of this machine, and of data known here.

    Args:
        run: what would be run, in a word or two.
        request: what is asked for.
        settings: where to look.
        look: request, data and settings -> the result, and the sentence that there was nothing to do.
    """
    started = time.perf_counter()
    try:
        data = known_data.recall(request.dataset, settings) if settings.jobs_run_here else None
        found = None if data is None else look(request, data, settings)
    except (PairFlowError, OSError):  # the job says it, in its own place and time
        return None
    if data is None or found is None:
        return None
    result, sentence = found
    done = result.model_copy(update={"skipped": True, "seconds": time.perf_counter() - started})
    about = f"{data.spec.name}: {data.summary}", tuple(f"{data.spec.name}: {each}" for each in data.notes)
    return Found(done, run, sentence, *about)


def find_pairs(request: PairRequest, settings: Settings) -> Found[PairResult] | None:
    """Pairs that are whole, down to every hash."""
    return looked_for(f"pair {request.dataset.name}", request, settings, _pairs)


def find_prepared(request: PrepareRequest, settings: Settings) -> Found[PrepareResult] | None:
    """Rows that are in the store, whole down to every hash."""
    return looked_for(f"prepare {request.dataset.name}", request, settings, _prepared)


def _prepared(request: PrepareRequest, data: DataFacts, settings: Settings) -> tuple[PrepareResult, str] | None:
    known_as = known_data.prepared(request.dataset, known_data.identity(request.dataset, settings), settings)
    if known_as is None:
        return None
    url = storage.dataset_url(settings.store, known_as)
    if storage.find_dataset(url) is None or not storage.verify_dataset(url).ok:
        return None
    return prepared_data.as_result(url, data.source, data.notes), f"nothing to do: these rows are prepared, at {url}"


def find_model(request: TrainRequest, settings: Settings) -> Found[TrainResult] | None:
    """A model that is trained, or refined, and logged."""
    what = f"{request.dataset.name} {request.method}"
    if isinstance(request, DistillRequest):
        return looked_for(f"distill {what}", request, settings, _refined)
    return looked_for(f"train {what}", request, settings, _trained)


def _pairs(request: PairRequest, data: DataFacts, settings: Settings) -> tuple[PairResult, str] | None:
    known_as = _known_as(request, data, settings)
    if request.expected_fingerprint is not None or known_as is None:
        return None
    url = storage.pairs_url(settings.store, known_as, request.format)
    if not storage.has_manifest(url):
        return None
    run = finished_run(settings, request.dataset.name, "pair", known_as)
    if run is None or not storage.verify_pairs(url, progress=False).ok:
        return None
    manifest = storage.find_manifest(url)
    if manifest is None:
        return None
    return pair_result(url, manifest, run.run_id, run.experiment_id), pairs_are_whole(url)


def _known_as(request: PairRequest, data: DataFacts, settings: Settings) -> str | None:
    """Fingerprint of the pairs that are asked for, as their source in `flows.jobs.sources` says it; None: ask there."""
    if isinstance(spec := request.wanted, CouplingSpec):
        earlier = None
        if request.extend is not None:
            url = stored_pairs.url_of(request.extend, settings.store)
            if not storage.verify_pairs(url, progress=False).ok:
                return None
            earlier = storage.open_pairs(url)
        return inputs.pairs_fingerprint(spec, data.train, request.engine, earlier)[0]
    if request.base_model is None:
        return None
    base = models.resolve(request.base_model, settings)
    return (
        inputs.redi_fingerprint(spec, data.train, base.sha256) if checkpoint_files.is_whole(base.checkpoint) else None
    )


def _trained(request: TrainRequest, data: DataFacts, settings: Settings) -> tuple[TrainResult, str] | None:
    method = methods.find(request.method)
    pairs = None
    if method.pairs is not None:
        pairs = inputs.find_pairs(request, method.pairs, data, settings).manifest.fingerprint
    known_as = inputs.training_fingerprint(request.settings, method, data.train, pairs)
    return _model("train", known_as, request, settings)


def _refined(request: DistillRequest, data: DataFacts, settings: Settings) -> tuple[TrainResult, str] | None:
    method = methods.find(request.method)
    if method.refinement is None:
        return None
    base = base_of(request, method, data, settings)
    if not checkpoint_files.is_whole(base.checkpoint):
        return None
    stored = inputs.refinement_pairs(method, request, base, data, settings)
    pairs = None if stored is None else stored.manifest.fingerprint
    spec = method.refinement.training(request.settings)
    return _model("distill", inputs.distillation_fingerprint(spec, data.train, base.sha256, pairs), request, settings)


def _model(stage: str, known_as: str, request: TrainRequest, settings: Settings) -> tuple[TrainResult, str] | None:
    found = KeptFolder.at(settings.runs_dir / known_as, settings).read("result.json", TrainResult)
    # The same weights may have another method's name, which may not be given to them: that is for the job to say.
    if found is None or found.method != request.method:
        return None
    run = finished_run(settings, request.dataset.name, stage, known_as)
    return None if run is None else (found, model_is_trained(found))


def pairs_are_whole(url: str) -> str:
    """That there is nothing to do."""
    return f"nothing to do: these pairs are whole, at {url}"


def model_is_trained(result: TrainResult) -> str:
    """That there is nothing to do."""
    return f"nothing to do: this model is trained, its checkpoint is {result.checkpoint}"


def pair_result(url: str, manifest: Manifest, run_id: str, experiment_id: str) -> PairResult:
    """Pairs as a result; what made them, and when, is for the caller to say."""
    figures = inputs.figures(manifest)
    return PairResult(
        url=url,
        fingerprint=manifest.fingerprint,
        format=manifest.format,
        rows=manifest.num_rows,
        num_shards=len(manifest.shards),
        content_sha256=manifest.content_sha256,
        dataset_digest=str(manifest.dataset["digest"]),
        engine=manifest.engine,
        skipped=False,
        extends=extended_by(manifest.spec),
        seconds=0.0,
        rows_per_second=figures.get("rows_per_second", 0.0),  # lost with a damaged manifest
        pairing_seconds=inputs.pairing_seconds(manifest),
        mean_hamming=figures.get("mean_hamming"),
        keep_rate=figures.get("keep_rate"),
        mlflow_run_id=run_id,
        mlflow_experiment_id=experiment_id,
    )


def base_of(request: DistillRequest, method: Method, data: DataFacts, settings: Settings) -> FoundModel:
    """The model that is refined: the one that was named, or the one that these settings train.

    Raises:
        CheckpointError: there is none.
        StoreError: the pairs that it is trained on are not there.
    """
    if request.base_model is not None:
        return models.resolve(request.base_model, settings)
    (base,) = trained(METHODS[method.base], request, data, settings)
    return FoundModel.of(base, settings)


def trained(
    method: Method, request: TrainRequest | EvaluateRequest, data: DataFacts, settings: Settings
) -> tuple[TrainResult, ...]:
    """What training left of a method's model: the base, then, of a refined method, what was made of it.

    Raises:
        CheckpointError: one of them is not trained.
        StoreError: pairs that a fingerprint covers are not there.
    """
    preset, pairs = request.settings, None
    if method.pairs is not None:
        pairs = inputs.find_pairs(request, method.pairs, data, settings).manifest.fingerprint
    known_as = inputs.training_fingerprint(preset, method, data.train, pairs)
    base = _read(METHODS[method.base], "train", known_as, data, settings)
    if method.refinement is None:
        return (base,)
    start = base.checkpoint_sha256
    if (group := method.refined_on(preset)) is not None:
        pairs = inputs.find_pairs(request, group, data, settings).manifest.fingerprint
    elif (own := method.refinement.own_pairs(preset)) is not None:
        pairs = inputs.redi_fingerprint(own, data.train, start)
    else:
        pairs = None
    known_as = inputs.distillation_fingerprint(method.refinement.training(preset), data.train, start, pairs)
    return base, _read(method, "distill", known_as, data, settings)


def _read(method: Method, command: str, known_as: str, data: DataFacts, settings: Settings) -> TrainResult:
    folder = KeptFolder.at(settings.runs_dir / known_as, settings)
    found = folder.read("result.json", TrainResult)
    if found is None:
        raise CheckpointError(
            f"no finished {method.label} model of {data.spec.name} with these settings: {folder.place()} is not there; "
            f"make it with `pairflow {command} --dataset {data.spec.name} --method {method.name}`"
        )
    return found
