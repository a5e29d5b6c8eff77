"""What the jobs that train and distil have in common: find a finished model, or make one, visibly and traceably."""

import contextlib
import functools
import json
import logging
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from flows.cluster.protocol import JobContext, ProgressLines
from flows.home.kept_results import KeptFolder
from flows.home.locks import in_turn
from flows.home.settings import Settings
from flows.jobs import finished, inputs
from flows.jobs.live_samples import LiveSamples
from flows.jobs.machine import in_use, keep_freed_memory, use_threads
from flows.jobs.replicas import checkpoints_of, connect_for_training, fit_together
from flows.jobs.turns import turn
from flows.lineage import page_text
from flows.lineage import tags as tag
from flows.lineage.models import FoundModel
from flows.lineage.stage_run import StageRun
from flows.lineage.tracking import Lineage
from flows.recipes.methods import Method
from flows.results import TrainResult
from pairflow import checkpoint
from pairflow.data_card import DataCard
from pairflow.models import count_parameters
from pairflow.spec import OptimizerSpec, Spec
from pairflow.training import FitResult, StepMetrics
from pairflow.training_data import Placing
from storage import Pairs

_logger = logging.getLogger("pairflow.job")
_VALIDATION_ROWS = 1024
_REPORTS = 200  # points on a training curve
_CHECKPOINTS = 10
_VALIDATIONS = 5


@dataclass(frozen=True)
class Learning:
    """A model that is wanted, and all that its lineage says.

    Attributes:
        stage: the flow.
        method: whose model it is.
        fingerprint: of the model.
        spec: optimiser steps and seed.
        specs: all that are logged.
        pairs: that it is trained on, if it is.
        base: the model that it is started from, if it is.
        fit: `pairflow.training.fit` or `pairflow.distillation.dcd.distill` with its specs; the data and what is said
            here follow when it is called.
    """

    stage: Literal["train", "distill"]
    method: Method
    fingerprint: str
    data: inputs.Data
    spec: OptimizerSpec
    specs: Mapping[str, Spec]
    pairs: Pairs | None
    base: FoundModel | None
    fit: Callable[..., FitResult]

    @property
    def name(self) -> str:
        """As a run is called."""
        return f"{self.stage} {self.data.spec.name} {self.method.name}"


def learn(work: Learning, settings: Settings, context: JobContext) -> TrainResult:
    """The model: found if it is finished; else trained, going on from its last checkpoint, and logged.

    Raises:
        TrainingError: the loss is not finite.
        CheckpointError: a checkpoint is damaged.
        SpecError: base, pairs and data do not fit each other.
    """
    started = time.perf_counter()
    folder = KeptFolder.at(settings.runs_dir / work.fingerprint, settings)
    lineage = Lineage(settings)

    def wait_for(other: str) -> None:
        _logger.info("%s trains the same model at this moment; this job waits, and takes what that one makes", other)

    # Two at once would write the same checkpoints, and log the model twice. A file, as they may run on two clusters.
    name = f"{work.stage}-{work.fingerprint}"
    with contextlib.ExitStack() as turns:
        turns.enter_context(in_turn(settings.home / "locks", name, context.submission_id or "another job", wait_for))
        if folder.url is not None:  # nor may two of one cluster whose homes are others
            connect_for_training()
            turns.enter_context(turn(f"{work.stage} {folder.url}"))
        found = folder.read("result.json", TrainResult)
        if found is not None and lineage.finished(work.data.spec.name, work.stage, work.fingerprint) is not None:
            _logger.info("%s", finished.model_is_trained(found))
            return found.model_copy(update={"skipped": True, "seconds": time.perf_counter() - started})
        return _make(work, folder, lineage, settings, context, started)


def _make(
    work: Learning, folder: KeptFolder, lineage: Lineage, settings: Settings, context: JobContext, started: float
) -> TrainResult:
    """Trains, going on from the last checkpoint, and logs the model."""
    data, method = work.data, work.method
    use_threads(settings.threads_per_job, context.num_sharing)
    keep_freed_memory()
    run = lineage.run(
        data.spec.name,
        work.stage,
        work.fingerprint,
        name=work.name,
        specs=work.specs,
        context=context,
        about={"method": method.name, "seed": str(work.spec.seed)},
    )
    with run as stage:
        _link(work, stage)
        used = in_use(settings)
        stage.tag({tag.MACHINE_USED: used})
        stage.tell({"Used": used})
        checkpoints = checkpoints_of(work.fingerprint, settings)
        shown = LiveSamples(data.train, checkpoints, work.spec.num_steps, stage, settings)
        fitted = _fit(work, stage, settings, shown)
        num_parameters = count_parameters(checkpoint.load_model(fitted.checkpoint, device="cpu").model)
        vocab = data.train.vocab
        card = DataCard(
            dataset=data.spec,
            digest=data.train.digest,
            kind=data.train.kind,
            vocab=None if vocab is None else vocab.tokens,
        )
        card.write(fitted.checkpoint)
        checkpoints.keep_card(fitted.steps)
        place = checkpoints.place(fitted.steps)
        sha256 = FoundModel.at(fitted.checkpoint).sha256
        stage.tag({tag.CHECKPOINT: place, tag.CHECKPOINT_SHA256: sha256})
        stage.settle()  # so that a run which somebody deleted has its successor before the model goes there
        model_id = lineage.insist(
            lambda: stage.log_model(
                f"{data.spec.name}-{method.name}",
                fitted.checkpoint,
                params={"num_parameters": str(num_parameters)},
                tags=_tags(work) | {tag.CHECKPOINT_SHA256: sha256},
            )
        )
        final = {"final_loss": fitted.loss, "training_seconds": fitted.seconds}
        if fitted.validation_nll is not None and fitted.validation_bits is not None:
            final |= {
                "final_validation_nll": fitted.validation_nll,
                "final_validation_bits_per_token": fitted.validation_bits,
            }
        stage.log(final, step=fitted.steps, model_id=model_id, data=data.as_input("training"))
        _tell_cost(work, fitted, stage, lineage)
        _attach(work, folder.here, shown.draw(fitted.steps, fitted.checkpoint), stage, lineage)
    result = TrainResult(
        fingerprint=work.fingerprint,
        method=method.name,
        training_seed=work.spec.seed,
        checkpoint=place,
        checkpoint_sha256=sha256,
        base_checkpoint=None if work.base is None else work.base.place,
        num_steps=fitted.steps,
        num_parameters=num_parameters,
        loss=fitted.loss,
        validation_nll=fitted.validation_nll,
        dataset_digest=data.train.digest,
        pairs_fingerprint=None if work.pairs is None else work.pairs.manifest.fingerprint,
        pairs_url=None if work.pairs is None else work.pairs.url,
        pairing_seconds=0.0 if work.pairs is None else inputs.pairing_seconds(work.pairs.manifest),
        training_seconds=fitted.seconds,
        skipped=False,
        seconds=time.perf_counter() - started,
        mlflow_run_id=stage.run_id,
        mlflow_experiment_id=stage.experiment_id,
        mlflow_model_id=model_id,
    )
    folder.write("result.json", result)
    return result


def _link(work: Learning, stage: StageRun) -> None:
    """Says in MLflow what the model is made from."""
    pairs, base = work.pairs, work.base
    used = [work.data.as_input("training"), *([inputs.as_input(pairs)] if pairs is not None else [])]
    stage.use(*used, model_id=None if base is None else base.mlflow_model_id)
    stage.tag(_tags(work))
    if base is not None:
        stage.tell({"Started from": f"the checkpoint {page_text.code_span(base.place)}"})


def _tell_cost(work: Learning, fitted: FitResult, stage: StageRun, lineage: Lineage) -> None:
    """Says what the model cost; on one machine, seconds stand for energy."""
    pairing_seconds = 0.0
    lines = {}
    if work.pairs is not None:
        manifest = work.pairs.manifest
        pairing_seconds = inputs.pairing_seconds(manifest)
        made_by = lineage.finished(work.data.spec.name, "pair", manifest.fingerprint)
        lines["Pairs"] = page_text.pairs(manifest.fingerprint, work.pairs.url, made_by, stage.experiment_id)
    stage.log({"pairing_seconds": pairing_seconds}, step=fitted.steps)
    if fitted.seconds:
        stage.log({"pairing_to_training_seconds": pairing_seconds / fitted.seconds}, step=fitted.steps)
    stage.tell(lines | {"Time": page_text.cost(pairing_seconds, fitted.seconds)})


def _attach(work: Learning, folder: Path, samples: Path | None, stage: StageRun, lineage: Lineage) -> None:
    """Leaves what a reader wants beside the model: what it draws, and all of its settings."""
    run_id = stage.run_id
    settings = folder / "settings.json"
    document = {name: spec.model_dump(mode="json") for name, spec in work.specs.items()}
    settings.write_text(json.dumps(document, indent=2), encoding="utf-8")
    lineage.attach(run_id, settings)
    if samples is not None:
        last = Path(shutil.copyfile(samples, folder / "samples.png"))
        lineage.attach(run_id, last)


def _tags(work: Learning) -> dict[str, str]:
    tags = {
        tag.FINGERPRINT: work.fingerprint,
        tag.METHOD: work.method.name,
        tag.DATASET_DIGEST: work.data.train.digest,
        tag.TRAINING_SEED: str(work.spec.seed),
    }
    if work.pairs is not None:
        tags |= {tag.PAIRS_FINGERPRINT: work.pairs.manifest.fingerprint, tag.PAIRS_URL: work.pairs.url}
    if work.base is not None:
        tags |= {tag.BASE_SHA256: work.base.sha256, tag.BASE_CHECKPOINT: work.base.place}
        if work.base.mlflow_model_id is not None:
            tags[tag.BASE_MODEL_ID] = work.base.mlflow_model_id
    return tags


def _fit(work: Learning, stage: StageRun, settings: Settings, shown: LiveSamples) -> FitResult:
    """Trains with live curves in MLflow and progress on the job's output."""
    num_steps, data = work.spec.num_steps, work.data
    bound = settings.training_data_mb

    def on_step(metrics: StepMetrics) -> None:
        bar.reach(metrics.step)
        curves = {
            # The names with a slash are a section of MLflow's page, and it comes first.
            "loss/training": metrics.loss,
            "loss/held_out_nll": metrics.validation_nll,
            "train_loss": metrics.loss,
            "learning_rate": metrics.learning_rate,
            "gradient_norm": metrics.grad_norm,
            "tokens_per_second": metrics.tokens_per_second,
            "validation_nll": metrics.validation_nll,
            "validation_bits_per_token": metrics.validation_bits,
            "flop_utilisation": metrics.flop_utilisation,
        }
        stage.log({name: value for name, value in curves.items() if value is not None}, step=metrics.step)
        shown.reach(metrics.step)

    keywords: dict[str, Any] = {
        "target": data.train.tokens if work.pairs is None else work.pairs,  # opened, and read by who trains
        "placing": Placing(settings.training_data, None if bound is None else bound << 20),
        "vocab_size": data.train.vocab_size,
        "image_shape": data.train.image_shape,
        "checkpoint_every": max(1, num_steps // _CHECKPOINTS),
        "log_every": max(1, num_steps // _REPORTS),
        "validate_every": max(1, num_steps // _VALIDATIONS),
        "validation": None if data.test is None else data.test.tokens[:_VALIDATION_ROWS],
        "progress": False,
    }
    fit = functools.partial(work.fit, **keywords)
    with ProgressLines(desc=work.name, total=num_steps, unit="steps") as bar:
        return fit_together(fit, work.fingerprint, settings, on_step)
