"""`fit`: trains a denoiser on targets, or on coupled pairs, with checkpoints and metrics (docs/method.md §3).

The result is a pure function of (model spec, training spec, data, initial weights) on one kind of device: rows, times
and noise of a step are keyed by (seed, step), so an interrupted run that is started again ends, on the CPU, with
bit-identical weights.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from pairflow import models, processes
from pairflow.batches import Stream, check_tokens, stream_seed
from pairflow.checkpoint import LoadedModel, load_model
from pairflow.devices import resolve_device
from pairflow.errors import SpecError
from pairflow.integers import check_integer
from pairflow.learner import Learner
from pairflow.loop import Cadence, FitResult, StepMetrics, run
from pairflow.objectives import Denoising
from pairflow.replicas import Replica
from pairflow.row_source import RowSource, check_shape
from pairflow.spec import ModelSpec, OptimizerSpec, TrainingSpec, parse
from pairflow.training_data import Placing, TrainingData
from pairflow.validation import Validator


def fit(
    model_spec: ModelSpec,
    training_spec: TrainingSpec,
    target: np.ndarray | RowSource,
    source: np.ndarray | None = None,
    *,
    vocab_size: int,
    image_shape: models.ImageShape | None = None,
    initial: str | Path | None = None,
    checkpoint_dir: str | Path,
    checkpoint_every: int = 1000,
    log_every: int = 50,
    on_step: Callable[[StepMetrics], None] | None = None,
    validation: np.ndarray | None = None,
    validate_every: int | None = None,
    spike_factor: float | None = 10.0,
    compiled: bool | None = None,
    replica: Replica | None = None,
    placing: Placing | None = None,
    device: str | torch.device = "auto",
    progress: bool = True,
) -> FitResult:
    """Trains until `training_spec.num_steps`, going on from the last checkpoint in `checkpoint_dir` if there
    is one.

    A finished run that is called again returns at once. An exception, such as one raised by `on_step`, ends
    the run and loses at most one checkpoint interval.

    Args:
        model_spec: the denoiser.
        training_spec: process, coupling, optimiser and seed.
        target: data x_1, integers [M, D]; or what reads them, and the sources of pairs, such as `storage.open_pairs`.
        source: for the paired coupling each row's stored x_0, integers [M, D]; not for the independent one.
        vocab_size: K.
        image_shape: (C, H, W) for images.
        initial: a checkpoint whose averaged weights are where training starts (ReDi fine-tunes so), rather than
            random weights; the optimiser and the averages start anew.
        checkpoint_dir: a folder for this run alone.
        checkpoint_every: steps between checkpoints; the last step always has one.
        log_every: steps between calls of `on_step`.
        on_step: called with the metrics.
        validation: held-out rows [V, D], whose loss under the EMA weights is measured with noise that is
            always the same.
        validate_every: steps between validations; at the end only if None.
        spike_factor: end the run when the loss, as the median of three steps, leaps above this many times its running
            median (see `pairflow.spikes`); None switches that off, and leaves losses that are not finite.
        compiled: run the network through torch.compile; by default on CUDA only: the minute that compilation takes
            does not pay for what a CPU trains.
        replica: this process's place among several that train together, `Replica.current()`; alone by default.
        placing: where the data lie meanwhile, on the device or read as they are needed; as free memory allows by
            default. Never changes the result.
        device: 'auto', 'cpu', 'cuda', ….
        progress: show a progress bar.

    Raises:
        SpecError: arrays, sizes, intervals or initial weights that do not fit.
        CheckpointError: `checkpoint_dir` holds a damaged checkpoint or one of another run.
        TrainingError: the loss or the gradient is not finite, or the loss leapt.
    """
    model_spec = parse(ModelSpec, model_spec.model_dump())  # a copy with updates was never checked
    training_spec = parse(TrainingSpec, training_spec.model_dump())
    vocab_size, image_shape = check_sizes(vocab_size, image_shape)
    cadence = Cadence(checkpoint_every, log_every, validate_every)
    cadence.check()
    check_data(training_spec, target, source, validation, vocab_size, paired=training_spec.coupling == "paired")
    place, replica = resolve_device(device), Replica() if replica is None else replica
    data = TrainingData.of(target, source, vocab_size, placing, place, replica)
    if initial is None:
        first = None
        of_the_data = processes.is_of_the_data(training_spec.process)
        marginal = data.marginals(vocab_size, replica) if of_the_data else None
        process = processes.build(training_spec.process, vocab_size, training_spec.predicts, marginal)
    else:
        first = _load_initial(initial, model_spec, training_spec, vocab_size, data, image_shape)
        process = first.process  # its marginals are the data's, and `target` may be what it made itself
    identity = {
        "model": model_spec.model_dump(mode="json"),
        "training": training_spec.model_dump(mode="json"),
        "vocab_size": vocab_size,
        "length": data.length,
        "image_shape": None if image_shape is None else list(image_shape),
        "data_sha256": data.digest,
        "initial_sha256": None if first is None else first.state["sha256"],
    }
    with torch.random.fork_rng(devices=[place] if place.type == "cuda" else []):
        torch.manual_seed(stream_seed(training_spec.seed, Stream.WEIGHTS))
        learner = Learner.start(
            model_spec,
            training_spec,
            process,
            identity,
            place,
            compiled=place.type == "cuda" if compiled is None else compiled,
            spike_factor=spike_factor,
            replica=replica,
        )
        if first is not None:
            learner.take_weights(first.model)
        with data.epochs(training_spec, place, replica) as batches:
            objective = Denoising(batches, process, training_spec.time_epsilon, training_spec.objective)
            learner.resume(Path(checkpoint_dir), objective)
            return run(
                learner,
                objective,
                Path(checkpoint_dir),
                cadence=cadence,
                validator=None if validation is None else Validator(validation, training_spec, place),
                on_step=on_step,
                title=f"train, {training_spec.coupling}",
                progress=progress,
            )


def _load_initial(
    path: str | Path,
    model_spec: ModelSpec,
    spec: TrainingSpec,
    vocab_size: int,
    data: TrainingData,
    image_shape: models.ImageShape | None,
) -> LoadedModel:
    """The model whose weights a training starts from; it must be of the same sizes, process and kind of prediction.

    Raises:
        SpecError: it is of others.
        CheckpointError: missing, or damaged.
    """
    first = load_model(path, device="cpu")
    free = {"dropout": model_spec.dropout}  # has no weights
    pairs = (
        ("process", first.training.process, spec.process),
        ("vocab_size", first.vocab_size, vocab_size),
        ("length", first.length, data.length),
        ("image_shape", first.image_shape, image_shape),
        ("model", first.model_spec.model_copy(update=free), model_spec),
    )
    if first.process.predicts != spec.predicts:
        raise SpecError(
            f"initial: the model at {first.path} was trained with objective '{first.training.objective}', whose "
            f"network predicts from {first.process.predicts} positions, this training's from {spec.predicts}; set "
            f"training.objective={first.training.objective}"
        )
    for name, got, expected in pairs:
        if got != expected:
            raise SpecError(f"initial: the model at {first.path} has {name} {got!r}, this training has {expected!r}")
    return first


def check_sizes(vocab_size: int, image_shape: models.ImageShape | None) -> tuple[int, models.ImageShape | None]:
    """Sizes as Python's own whole numbers, which checkpoints can say.

    Raises:
        SpecError: one is none, or out of its range.
    """
    vocab_size = check_integer(vocab_size, "vocab_size", 2)
    if image_shape is None:
        return vocab_size, None
    if len(image_shape) != 3:
        raise SpecError(f"image_shape: got {image_shape}, expected (C, H, W)")
    channels, height, width = (check_integer(size, "image_shape", 1) for size in image_shape)
    return vocab_size, (channels, height, width)


def check_data(
    spec: OptimizerSpec,
    target: np.ndarray | RowSource,
    source: np.ndarray | None,
    validation: np.ndarray | None,
    vocab_size: int,
    *,
    paired: bool,
) -> int:
    """Arrays must fit the vocabulary, each other and the coupling; of what is stored, shapes and types are looked at.

    Returns:
        D.

    Raises:
        SpecError: what does not fit.
    """
    if isinstance(target, RowSource):
        check_shape(target)
        if source is not None:
            raise SpecError("source: got an array, but target is a store's rows, which have their own; leave it out")
        length, has_source = target.target.shape[1], target.source is not None
    else:
        check_tokens("target", target, vocab_size=vocab_size)
        length, has_source = target.shape[1], source is not None
    if spec.lr_schedule == "cosine" and spec.min_learning_rate > spec.learning_rate:
        raise SpecError(
            f"min_learning_rate: got {spec.min_learning_rate}, expected at most the peak of {spec.learning_rate}"
        )
    if paired and not has_source:
        raise SpecError("source: got none, but coupling 'paired' needs each row's source; pair the data first")
    if has_source and not paired:
        raise SpecError("source: got an array, but coupling 'independent' draws its own; leave it out")
    if isinstance(target, np.ndarray) and source is not None:
        check_tokens("source", source, vocab_size=vocab_size, length=length)
        if len(source) != len(target):
            raise SpecError(f"source: got {len(source)} rows, expected {len(target)} as in target")
    if validation is not None:
        check_tokens("validation", validation, vocab_size=vocab_size, length=length)
    return length


__all__ = ["FitResult", "StepMetrics", "check_data", "check_sizes", "fit"]
