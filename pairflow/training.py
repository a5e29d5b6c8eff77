"""`fit`: trains a denoiser on targets, or on coupled pairs, with checkpoints and metrics (method.md §3).

The result is a pure function of (model spec, training spec, data) on one kind of device: rows, times and
noise of a step are keyed by (seed, step), so an interrupted run that is started again ends, on the CPU, with
bit-identical weights.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from pairflow import checkpoint, models
from pairflow.batches import Batches, Stream, check_tokens, data_digest, stream_seed
from pairflow.devices import resolve_device
from pairflow.errors import CheckpointError, SpecError
from pairflow.learner import Learner, learning_rate
from pairflow.spec import ModelSpec, TrainingSpec
from pairflow.validation import Validator


@dataclass(frozen=True)
class StepMetrics:
    """What `on_step` is told, every `log_every` steps and after the last one.

    Attributes:
        step: optimiser steps done, from 1.
        loss: mean over the steps since the last report, in nats per token.
        learning_rate: of this step.
        grad_norm: before clipping, of this step.
        tokens_per_second: target tokens trained on per second since the last report.
        validation_nll: in nats per token, at the steps where it was measured.
    """

    step: int
    loss: float
    learning_rate: float
    grad_norm: float
    tokens_per_second: float
    validation_nll: float | None = None


@dataclass(frozen=True)
class FitResult:
    """What a finished training left.

    Attributes:
        checkpoint: folder of the last checkpoint.
        loss: running mean of the training loss, nats per token.
        validation_nll: bound on the held-out negative log-likelihood, nats per token (÷ ln 2 for bits); None
            without validation rows.
        steps: optimiser steps.
        seconds: spent training, over all sessions of a resumed run.
    """

    checkpoint: Path
    loss: float
    validation_nll: float | None
    steps: int
    seconds: float


def fit(
    model_spec: ModelSpec,
    training_spec: TrainingSpec,
    target: np.ndarray,
    source: np.ndarray | None = None,
    *,
    vocab_size: int,
    image_shape: models.ImageShape | None = None,
    checkpoint_dir: str | Path,
    checkpoint_every: int = 1000,
    log_every: int = 50,
    on_step: Callable[[StepMetrics], None] | None = None,
    validation: np.ndarray | None = None,
    validate_every: int | None = None,
    device: str | torch.device = "auto",
    progress: bool = True,
) -> FitResult:
    """Trains until `training_spec.num_steps`, going on from the last checkpoint in `checkpoint_dir` if there
    is one.

    A finished run that is called again returns at once. An exception, such as one raised by `on_step`, ends
    the run and loses at most one checkpoint interval.

    Args:
        model_spec: the denoiser.
        training_spec: coupling, optimiser and seed.
        target: data x_1, integers [M, D].
        source: for the paired coupling each row's stored x_0, integers [M, D]; not for the independent one.
        vocab_size: K.
        image_shape: (C, H, W) for images.
        checkpoint_dir: a folder for this run alone.
        checkpoint_every: steps between checkpoints; the last step always has one.
        log_every: steps between calls of `on_step`.
        on_step: called with the metrics.
        validation: held-out rows [V, D], whose loss under the EMA weights is measured with noise that is
            always the same.
        validate_every: steps between validations; at the end only if None.
        device: 'auto', 'cpu', 'cuda', ….
        progress: show a progress bar.

    Raises:
        SpecError: arrays, sizes or intervals that do not fit.
        CheckpointError: `checkpoint_dir` holds a damaged checkpoint or one of another run.
        TrainingError: the loss or the gradient is not finite.
    """
    _check_intervals(checkpoint_every=checkpoint_every, log_every=log_every, validate_every=validate_every)
    _check_data(training_spec, target, source, validation, vocab_size)
    place = resolve_device(device)
    directory = Path(checkpoint_dir)
    paired = training_spec.coupling == "paired"
    identity = {
        "model": model_spec.model_dump(mode="json"),
        "training": training_spec.model_dump(mode="json"),
        "vocab_size": vocab_size,
        "length": target.shape[1],
        "image_shape": None if image_shape is None else list(image_shape),
        "data_sha256": data_digest(target, source),
    }
    devices = [place] if place.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(stream_seed(training_spec.seed, Stream.WEIGHTS))
        run = Learner.start(model_spec, training_spec, identity, place)
        run.resume(directory)
        batches = Batches(
            target,
            source if paired else None,
            batch_size=training_spec.batch_size,
            seed=training_spec.seed,
            device=place,
        )
        validator = None if validation is None else Validator(validation, training_spec, place)
        reporter = _Reporter(run, directory, tokens_per_step=training_spec.batch_size * target.shape[1])
        bar = tqdm(
            initial=run.step,
            total=training_spec.num_steps,
            desc="train, paired" if paired else "train, independent",
            unit="step",
            disable=not progress,
        )
        with bar:
            while run.step < training_spec.num_steps:
                run.advance(batches)
                bar.update()
                last = run.step == training_spec.num_steps
                saves = last or run.step % checkpoint_every == 0
                validates = validator and (last or (validate_every and run.step % validate_every == 0))
                if not (saves or validates or run.step % log_every == 0):
                    continue
                metrics = reporter.report(validator if validates else None)
                bar.set_postfix(loss=f"{metrics.loss:.3f}", refresh=False)
                if on_step is not None:
                    on_step(metrics)
                if saves:
                    run.save(directory)
    folder = checkpoint.latest(directory)
    if folder is None:
        raise CheckpointError(f"the checkpoints in {directory} were removed while training")
    return FitResult(folder, run.loss, run.validation_nll, run.step, run.seconds)


class _Reporter:
    """Turns the steps since its last report into metrics, and keeps the clock."""

    def __init__(self, run: Learner, directory: Path, tokens_per_step: int) -> None:
        self.run, self.directory, self.tokens_per_step = run, directory, tokens_per_step
        self._clock, self._step = time.perf_counter(), run.step

    def report(self, validator: Validator | None) -> StepMetrics:
        run = self.run
        loss = run.drain(self.directory)
        elapsed = time.perf_counter() - self._clock
        tokens = (run.step - self._step) * self.tokens_per_step
        nll = None
        if validator is not None:
            nll = run.validation_nll = validator.nll(run.ema.model, run.process)
        now = time.perf_counter()
        run.seconds += now - self._clock
        self._clock, self._step = now, run.step
        rate = learning_rate(run.spec, run.step - 1)
        return StepMetrics(run.step, loss, rate, run.last_grad_norm, tokens / elapsed, nll)


def _check_intervals(**intervals: int | None) -> None:
    for name, value in intervals.items():
        if value is not None and value < 1:
            raise SpecError(f"{name}: got {value}, expected at least 1")


def _check_data(
    spec: TrainingSpec,
    target: np.ndarray,
    source: np.ndarray | None,
    validation: np.ndarray | None,
    vocab_size: int,
) -> None:
    """Arrays must fit the vocabulary, each other and the coupling."""
    check_tokens("target", target, vocab_size=vocab_size)
    if spec.lr_schedule == "cosine" and spec.min_learning_rate > spec.learning_rate:
        raise SpecError(
            f"training.min_learning_rate: got {spec.min_learning_rate}, expected at most the peak of "
            f"{spec.learning_rate}"
        )
    if spec.coupling == "paired":
        if source is None:
            raise SpecError("source: got none, but coupling 'paired' needs each row's source; pair the data first")
        check_tokens("source", source, vocab_size=vocab_size, length=target.shape[1])
        if len(source) != len(target):
            raise SpecError(f"source: got {len(source)} rows, expected {len(target)} as in target")
    elif source is not None:
        raise SpecError("source: got an array, but coupling 'independent' draws its own; leave it out")
    if validation is not None:
        check_tokens("validation", validation, vocab_size=vocab_size, length=target.shape[1])
