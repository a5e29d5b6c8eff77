"""The distill job: `python -m flows.jobs.distill` on the Ray cluster."""

import functools
import sys

from flows.cluster.protocol import JobContext, main
from flows.home.settings import Settings
from flows.jobs import finished, inputs
from flows.jobs.learning import Learning, learn
from flows.lineage import models
from flows.lineage.models import FoundModel
from flows.parameters import DistillParameters, recipe
from flows.recipes import methods
from flows.recipes.methods import METHODS, Method
from flows.results import TrainResult
from pairflow.checkpoint import LoadedModel, load_model
from pairflow.distillation.dcd import check_teacher, distill
from pairflow.errors import SpecError
from pairflow.spec import DistillationSpec, Spec, TrainingSpec
from pairflow.training import fit


def run(parameters: DistillParameters, context: JobContext) -> TrainResult:
    """Distils a trained model (DCD), or trains it further on pairs that it made (ReDi), and logs what comes of it.

    Like a training it goes on from its last checkpoint, and does nothing if it is finished.

    Raises:
        DatasetError: the data cannot be had.
        CheckpointError: the model to start from is not trained, or is damaged.
        StoreError: the pairs that it needs are not there.
        SpecError: the model is of another vocabulary, length, process or method.
        TrainingError: the loss is not finite.
    """
    settings = Settings.read()
    data = inputs.load(parameters.dataset, settings)
    preset = recipe(parameters)
    method = methods.find(parameters.method)
    if parameters.base_model is not None:
        base = models.resolve(parameters.base_model, settings)
    else:
        (trained,) = finished.chain(METHODS[method.base], parameters, preset, data, settings)
        base = FoundModel.of(trained)
    loaded = load_model(base.checkpoint, device="cpu")
    check_teacher(loaded, data.train.vocab_size, data.train.length, data.train.image_shape)
    _check_method(loaded, method)
    spec: DistillationSpec | TrainingSpec
    if method.refinement == "dcd":
        spec = preset.distillation
        pairs = inputs.find_pairs(parameters, data, settings) if spec.states == "paired" else None
        specs: dict[str, Spec] = {"distillation": spec}
        refine = functools.partial(distill, spec, base.checkpoint)
    else:
        spec = preset.redi_training
        pairs = inputs.find_redi_pairs(preset.redi, base, data, settings)
        specs = {"redi": preset.redi, "redi_training": spec}
        refine = functools.partial(fit, loaded.model_spec, spec, initial=base.checkpoint)
    pairs_fingerprint = None if pairs is None else pairs.manifest.fingerprint
    work = Learning(
        stage="distill",
        method=method,
        fingerprint=inputs.distillation_fingerprint(spec, data.train, base, pairs_fingerprint),
        data=data,
        spec=spec,
        specs={"dataset": parameters.dataset, "model": loaded.model_spec, **specs},
        pairs=pairs,
        base=base,
        fit=refine,
    )
    return learn(work, settings, context)


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
    sys.exit(main(DistillParameters, run))
