"""Finds the models that trainings and distillations of these settings have left."""

from flows.jobs import inputs, runs
from flows.methods import METHODS, Method
from flows.models import FoundModel
from flows.parameters import DistillParameters, EvaluateParameters
from flows.results import TrainResult
from flows.settings import Settings
from pairflow.errors import CheckpointError
from pairflow.presets import Preset


def model(
    method: Method,
    parameters: DistillParameters | EvaluateParameters,
    preset: Preset,
    data: inputs.Data,
    settings: Settings,
) -> TrainResult:
    """What training, or distillation, left of a method's model.

    Raises:
        CheckpointError: it, or the base that it starts from, is not trained.
        StoreError: pairs that its fingerprint covers are not there.
    """
    if method.refinement is None:
        pairs = None
        if method.coupling == "paired":
            pairs = inputs.find_pairs(parameters, data, settings).manifest.fingerprint
        known_as = inputs.training_fingerprint(preset, method, data.train, pairs)
        return _read(method, "train", known_as, data, settings)
    start = base(method, parameters, preset, data, settings)
    if method.refinement == "dcd":
        pairs = None
        if preset.distillation.states == "paired":
            pairs = inputs.find_pairs(parameters, data, settings).manifest.fingerprint
        known_as = inputs.distillation_fingerprint(preset.distillation, data.train, start, pairs)
    else:
        pairs = inputs.redi_fingerprint(preset.redi, data.train, start)
        known_as = inputs.distillation_fingerprint(preset.redi_training, data.train, start, pairs)
    return _read(method, "distill", known_as, data, settings)


def base(
    method: Method,
    parameters: DistillParameters | EvaluateParameters,
    preset: Preset,
    data: inputs.Data,
    settings: Settings,
) -> FoundModel:
    """The trained model of these settings that a method refines.

    Raises:
        CheckpointError: it is not trained.
        StoreError: the pairs that it is trained on are not there.
    """
    trained = model(METHODS[method.base], parameters, preset, data, settings)
    return FoundModel.of(trained)


def _read(method: Method, command: str, known_as: str, data: inputs.Data, settings: Settings) -> TrainResult:
    folder = settings.runs_dir / known_as
    found = runs.read(folder / "result.json", TrainResult)
    if found is None:
        raise CheckpointError(
            f"no finished {method.label} model of {data.spec.name} with these settings: {folder} is not there; make it "
            f"with `pairflow {command} --dataset {data.spec.name} --method {method.name}`"
        )
    return found
