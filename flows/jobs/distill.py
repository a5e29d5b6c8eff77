"""The distill job: `python -m flows.jobs.distill` on the Ray cluster."""

import functools
import sys
from typing import Any

from flows.cluster.protocol import JobContext, main
from flows.home.settings import Settings
from flows.jobs import finished, inputs
from flows.jobs.learning import Learning, learn
from flows.lineage.models import FoundModel, resolve
from flows.lineage.tracking import Lineage
from flows.recipes import methods
from flows.recipes.methods import Method
from flows.recipes.refinements import Refinement
from flows.requests import DistillRequest
from flows.results import TrainResult
from pairflow.checkpoint import LoadedModel, load_model
from pairflow.checkpoint_files import is_checkpoint
from pairflow.distillation.dcd import check_teacher
from pairflow.errors import SpecError
from pairflow.presets import Preset
from pairflow.training import FitResult


def run(request: DistillRequest, context: JobContext) -> TrainResult:
    """Makes of a trained model what the method's refinement makes, and logs what comes of it.

    Like a training it goes on from its last checkpoint, and does nothing if it is finished.

    Raises:
        DatasetError: the data cannot be had.
        CheckpointError: the model to start from is not trained, or is damaged.
        StoreError: the pairs that it needs are not there.
        SpecError: the model is of another vocabulary, length, process or method.
        TrainingError: the loss is not finite.
    """
    settings = Settings.read()
    data = inputs.load(request.dataset, settings)
    preset = request.settings
    method = methods.find(request.method)
    if (refinement := method.refinement) is None:
        raise SpecError(f"method '{method.name}' refines no model; train it with `pairflow train`")
    base = finished.base_of(request, method, data.facts, settings)
    loaded = load_model(base.checkpoint, device="cpu")
    check_teacher(loaded, data.train.vocab_size, data.train.length, data.train.image_shape)
    _check_method(loaded, method)
    pairs = inputs.refinement_pairs(method, request, base, data.facts, settings)
    pairs_fingerprint = None if pairs is None else pairs.manifest.fingerprint
    spec = refinement.training(preset)
    work = Learning(
        stage="distill",
        method=method,
        fingerprint=inputs.distillation_fingerprint(spec, data.facts.train, base.sha256, pairs_fingerprint),
        data=data,
        spec=spec,
        specs={"dataset": request.dataset, "model": loaded.model_spec, **refinement.specs(preset)},
        pairs=pairs,
        base=base,
        fit=functools.partial(_refine, refinement, preset, loaded, base, request.base_model or base.place),
    )
    return learn(work, settings, context)


def _refine(
    refinement: Refinement,
    preset: Preset,
    loaded: LoadedModel,
    base: FoundModel,
    reference: str,
    *arguments: Any,
    **keywords: Any,
) -> FitResult:
    """Trains a model further, also on a machine that has not the one which is started from on its disk yet."""
    folder = base.checkpoint
    if not is_checkpoint(folder) or FoundModel.at(folder).sha256 != base.sha256:
        folder = resolve(reference, Settings.read()).checkpoint
    return refinement.fit(preset, loaded, folder)(*arguments, **keywords)


def _check_method(loaded: LoadedModel, method: Method) -> None:
    """A model that was trained plainly must be of the method's base; a refined one has no plain method.

    Raises:
        SpecError: it is of another.
    """
    plain = loaded.distillation is None and loaded.state.get("initial_sha256") is None
    if plain and loaded.training.coupling != method.coupling:
        raise SpecError(
            f"method '{method.name}' starts from a model with {method.coupling} sources ({method.base}), but that at "
            f"{loaded.path} was trained with {loaded.training.coupling} ones; choose the other method or another model"
        )


if __name__ == "__main__":
    sys.exit(main(DistillRequest, run, beforehand=lambda: Lineage(Settings.read())))
