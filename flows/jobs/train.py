"""The train job: `python -m flows.jobs.train` on the Ray cluster."""

import logging
import sys
import time
from pathlib import Path

import numpy as np

from flows.jobs import inputs, runs
from flows.jobs.machine import use_threads
from flows.jobs.protocol import JobContext, ProgressLines, main
from flows.lineage import Lineage, StageRun
from flows.parameters import TrainParameters, recipe
from flows.results import TrainResult
from flows.settings import Settings
from pairflow import checkpoint
from pairflow.models import count_parameters
from pairflow.presets import Preset
from pairflow.spec import Spec
from pairflow.training import FitResult, StepMetrics, fit
from storage import Pairs

_logger = logging.getLogger("pairflow.job")
_VALIDATION_ROWS = 1024
_REPORTS = 200  # points on a training curve
_CHECKPOINTS = 10
_VALIDATIONS = 5


def run(parameters: TrainParameters, context: JobContext) -> TrainResult:
    """Trains, going on from the last checkpoint of the same training if there is one, and logs the model.

    Raises:
        DatasetError: the data cannot be had.
        StoreError: the pairs are not there.
        TrainingError: the loss is not finite.
        CheckpointError: a checkpoint is damaged.
    """
    started = time.perf_counter()
    settings = Settings.read()
    data = inputs.load(parameters.dataset, settings)
    preset = recipe(parameters)
    kind = preset.training.coupling
    pairs = inputs.find_pairs(parameters, data, settings) if kind == "paired" else None
    pairs_fingerprint = None if pairs is None else pairs.manifest.fingerprint
    known_as = inputs.training_fingerprint(preset, kind, data.train, pairs_fingerprint)
    folder = settings.runs_dir / known_as
    lineage = Lineage(settings)
    trained = runs.read(folder / "result.json", TrainResult)
    if trained is not None and lineage.finished(parameters.dataset.name, "train", known_as) is not None:
        _logger.info("nothing to do: this model is trained, its checkpoint is %s", trained.checkpoint)
        return trained.model_copy(update={"skipped": True, "seconds": time.perf_counter() - started})
    specs: dict[str, Spec] = {"dataset": parameters.dataset, "model": preset.model, "training": preset.training}
    if pairs is not None:
        specs["coupling"] = preset.coupling
    name = f"train {parameters.dataset.name} {kind}"
    use_threads(settings.threads_per_job, context.num_sharing)
    with lineage.run(parameters.dataset.name, "train", known_as, name=name, specs=specs, context=context) as stage:
        stage.use(data.as_input("training"), *([inputs.as_input(pairs)] if pairs is not None else []))
        stage.tag(dataset_digest=data.train.digest)
        if pairs is not None:
            stage.tag(pairs_fingerprint=pairs.manifest.fingerprint, pairs_url=pairs.url)
        fitted = _fit(preset, data, pairs, folder / "checkpoints", stage)
        num_parameters = count_parameters(checkpoint.load_model(fitted.checkpoint, device="cpu").model)
        model_id = stage.log_model(
            f"{parameters.dataset.name}-{kind}",
            fitted.checkpoint,
            params={"architecture": preset.model.architecture, "num_parameters": str(num_parameters)},
            tags={
                "pairflow.fingerprint": known_as,
                "pairflow.coupling": kind,
                "pairflow.dataset_digest": data.train.digest,
                **({"pairflow.pairs_fingerprint": pairs.manifest.fingerprint} if pairs is not None else {}),
            },
        )
        final = {"final_loss": fitted.loss, "training_seconds": fitted.seconds}
        if fitted.validation_nll is not None:
            final["final_validation_nll"] = fitted.validation_nll
        stage.log(final, step=fitted.steps, model_id=model_id, data=data.as_input("training"))
    result = TrainResult(
        fingerprint=known_as,
        coupling=kind,
        checkpoint=str(fitted.checkpoint),
        num_steps=fitted.steps,
        num_parameters=num_parameters,
        loss=fitted.loss,
        validation_nll=fitted.validation_nll,
        dataset_digest=data.train.digest,
        pairs_fingerprint=pairs_fingerprint,
        pairs_url=None if pairs is None else pairs.url,
        skipped=False,
        seconds=time.perf_counter() - started,
        mlflow_run_id=stage.run_id,
        mlflow_model_id=model_id,
    )
    runs.write(folder / "result.json", result)
    return result


def _fit(preset: Preset, data: inputs.Data, pairs: Pairs | None, folder: Path, stage: StageRun) -> FitResult:
    """Trains with live curves in MLflow and progress on the job's output."""
    num_steps = preset.training.num_steps

    def on_step(metrics: StepMetrics) -> None:
        bar.reach(metrics.step)
        curves = {
            "train_loss": metrics.loss,
            "learning_rate": metrics.learning_rate,
            "gradient_norm": metrics.grad_norm,
            "tokens_per_second": metrics.tokens_per_second,
        }
        if metrics.validation_nll is not None:
            curves["validation_nll"] = metrics.validation_nll
        stage.log(curves, step=metrics.step)

    target = data.train.tokens if pairs is None else np.asarray(pairs.target)
    with ProgressLines(desc=f"train {data.spec.name} {preset.training.coupling}", total=num_steps, unit="steps") as bar:
        return fit(
            preset.model,
            preset.training,
            target,
            None if pairs is None else np.asarray(pairs.source),
            vocab_size=data.train.vocab_size,
            image_shape=data.train.image_shape,
            checkpoint_dir=folder,
            checkpoint_every=max(1, num_steps // _CHECKPOINTS),
            log_every=max(1, num_steps // _REPORTS),
            validate_every=max(1, num_steps // _VALIDATIONS),
            on_step=on_step,
            validation=None if data.test is None else data.test.tokens[:_VALIDATION_ROWS],
            progress=False,
        )


if __name__ == "__main__":
    sys.exit(main(TrainParameters, run))
