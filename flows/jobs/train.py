"""The train job: `python -m flows.jobs.train` on the Ray cluster."""

import functools
import sys

from flows.cluster.protocol import JobContext, main
from flows.home.settings import Settings
from flows.jobs import inputs
from flows.jobs.learning import Learning, learn
from flows.parameters import TrainParameters, recipe
from flows.recipes import methods
from flows.results import TrainResult
from pairflow.spec import Spec
from pairflow.training import fit


def run(parameters: TrainParameters, context: JobContext) -> TrainResult:
    """Trains, going on from the last checkpoint of the same training if there is one, and logs the model.

    Raises:
        DatasetError: the data cannot be had.
        StoreError: the pairs are not there.
        TrainingError: the loss is not finite.
        CheckpointError: a checkpoint is damaged.
    """
    settings = Settings.read()
    data = inputs.load(parameters.dataset, settings)
    preset = recipe(parameters)
    method = methods.find(parameters.method)
    training = method.training(preset.training)
    pairs = inputs.find_pairs(parameters, data, settings) if method.coupling == "paired" else None
    pairs_fingerprint = None if pairs is None else pairs.manifest.fingerprint
    specs: dict[str, Spec] = {"dataset": parameters.dataset, "model": preset.model, "training": training}
    if pairs is not None:
        specs["coupling"] = preset.coupling
    work = Learning(
        stage="train",
        method=method,
        fingerprint=inputs.training_fingerprint(preset, method, data.train, pairs_fingerprint),
        data=data,
        spec=training,
        specs=specs,
        pairs=pairs,
        base=None,
        fit=functools.partial(fit, preset.model, training),
    )
    return learn(work, settings, context)


if __name__ == "__main__":
    sys.exit(main(TrainParameters, run))
