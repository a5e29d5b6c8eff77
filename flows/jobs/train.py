"""The train job: `python -m flows.jobs.train` on the Ray cluster."""

import functools
import sys

from flows.cluster.protocol import JobContext, main
from flows.home.settings import Settings
from flows.jobs import inputs
from flows.jobs.learning import Learning, learn
from flows.lineage.tracking import Lineage
from flows.recipes import methods
from flows.requests import TrainRequest
from flows.results import TrainResult
from pairflow.spec import Spec
from pairflow.training import fit


def run(request: TrainRequest, context: JobContext) -> TrainResult:
    """Trains, going on from the last checkpoint of the same training if there is one, and logs the model.

    Raises:
        DatasetError: the data cannot be had.
        StoreError: the pairs are not there.
        TrainingError: the loss is not finite.
        CheckpointError: a checkpoint is damaged.
    """
    settings = Settings.read()
    data = inputs.load(request.dataset, settings)
    preset = request.settings
    method = methods.find(request.method)
    training = method.training(preset)
    pairs = None if method.pairs is None else inputs.find_pairs(request, method.pairs, data.facts, settings)
    pairs_fingerprint = None if pairs is None else pairs.manifest.fingerprint
    specs: dict[str, Spec] = {"dataset": request.dataset, "model": preset.model, "training": training}
    if method.pairs is not None:
        specs["coupling"] = methods.coupling_of(preset, method.pairs)
    work = Learning(
        stage="train",
        method=method,
        fingerprint=inputs.training_fingerprint(preset, method, data.facts.train, pairs_fingerprint),
        data=data,
        spec=training,
        specs=specs,
        pairs=pairs,
        base=None,
        fit=functools.partial(fit, preset.model, training),
    )
    return learn(work, settings, context)


if __name__ == "__main__":
    sys.exit(main(TrainRequest, run, beforehand=lambda: Lineage(Settings.read())))
