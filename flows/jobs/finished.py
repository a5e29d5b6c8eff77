"""Finds the models that trainings and distillations of these settings have left."""

from flows.home import kept_results
from flows.home.settings import Settings
from flows.jobs import inputs
from flows.lineage.models import FoundModel
from flows.recipes.methods import METHODS, Method
from flows.requests import EvaluateRequest, TrainRequest
from flows.results import TrainResult
from pairflow.errors import CheckpointError


def trained(
    method: Method,
    request: TrainRequest | EvaluateRequest,
    data: inputs.Data,
    settings: Settings,
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
    start = FoundModel.of(base)
    if (group := method.refined_on(preset)) is not None:
        pairs = inputs.find_pairs(request, group, data, settings).manifest.fingerprint
    elif (own := method.refinement.own_pairs(preset)) is not None:
        pairs = inputs.redi_fingerprint(own, data.train, start)
    else:
        pairs = None
    known_as = inputs.distillation_fingerprint(method.refinement.training(preset), data.train, start, pairs)
    return base, _read(method, "distill", known_as, data, settings)


def _read(method: Method, command: str, known_as: str, data: inputs.Data, settings: Settings) -> TrainResult:
    folder = settings.runs_dir / known_as
    found = kept_results.read(folder / "result.json", TrainResult)
    if found is None:
        raise CheckpointError(
            f"no finished {method.label} model of {data.spec.name} with these settings: {folder} is not there; make it "
            f"with `pairflow {command} --dataset {data.spec.name} --method {method.name}`"
        )
    return found
