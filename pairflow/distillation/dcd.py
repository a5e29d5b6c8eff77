"""`distill`: discrete consistency distillation (DCD, Duo, arXiv 2506.10892, §4; docs/method.md §5) of a trained model.

A student at a noisier state learns to say what a teacher says at a less noisy state of the same trajectory. The gap
between the two doubles every round, when the student becomes the next teacher: after n rounds one step of the student
stands for about 2^n of the first teacher's. The objective is in `pairflow.distillation.consistency`.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from pairflow.checkpoint import LoadedModel, load_model
from pairflow.devices import resolve_device
from pairflow.distillation.consistency import Consistency
from pairflow.errors import SpecError
from pairflow.learner import Learner
from pairflow.loop import Cadence, FitResult, StepMetrics, run
from pairflow.models import ImageShape
from pairflow.replicas import Replica
from pairflow.row_source import RowSource
from pairflow.spec import DistillationSpec, parse
from pairflow.training import check_data, check_sizes
from pairflow.training_data import Placing, TrainingData
from pairflow.validation import Validator


def distill(
    spec: DistillationSpec,
    teacher: str | Path,
    target: np.ndarray | RowSource,
    source: np.ndarray | None = None,
    *,
    vocab_size: int,
    image_shape: ImageShape | None = None,
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
    """Distils a trained model, going on from the last checkpoint in `checkpoint_dir` if there is one.

    Everything that is not named here is as in `pairflow.training.fit`: checkpoints, resuming bit for bit on the CPU,
    metrics, errors. The student has the teacher's architecture and starts from its averaged weights; its checkpoints
    are loaded, sampled and distilled again as any other.

    Args:
        spec: rounds, gap, noise and optimiser.
        teacher: a checkpoint of the model that is distilled, of the uniform process.
        target: data x_1, integers [M, D], such as the teacher was trained on; or what reads them, and sources of pairs.
        source: for `spec.states` 'paired' each row's stored x_0, integers [M, D]; not for 'gaussian'.
        vocab_size: K of the data; the teacher's must be the same.
        image_shape: (C, H, W) for images.

    Raises:
        SpecError: arrays or intervals that do not fit, or a teacher of another vocabulary, length, shape or process.
        CheckpointError: the teacher cannot be loaded, or `checkpoint_dir` holds a damaged checkpoint or another run's.
        TrainingError: the loss or the gradient is not finite, or the loss leapt.
    """
    spec = parse(DistillationSpec, spec.model_dump())  # a copy with updates was never checked
    vocab_size, image_shape = check_sizes(vocab_size, image_shape)
    cadence = Cadence(checkpoint_every, log_every, validate_every)
    cadence.check()
    length = check_data(spec, target, source, validation, vocab_size, paired=spec.states == "paired")
    loaded = load_model(teacher, device="cpu")
    check_teacher(loaded, vocab_size, length, image_shape)
    place, replica = resolve_device(device), Replica() if replica is None else replica
    data = TrainingData.of(target, source, vocab_size, placing, place, replica)
    use_compile = place.type == "cuda" if compiled is None else compiled
    identity = {
        "model": loaded.model_spec.model_dump(mode="json"),
        "training": loaded.training.model_dump(mode="json"),
        "distillation": spec.model_dump(mode="json"),
        "vocab_size": vocab_size,
        "length": data.length,
        "image_shape": None if image_shape is None else list(image_shape),
        "data_sha256": data.digest,
        "teacher_sha256": loaded.state["sha256"],
    }
    with torch.random.fork_rng(devices=[place] if place.type == "cuda" else []):
        learner = Learner.start(
            loaded.model_spec,
            spec,
            loaded.process,
            identity,
            place,
            compiled=use_compile,
            spike_factor=spike_factor,
            replica=replica,
        )
        learner.take_weights(loaded.model)
        with data.epochs(spec, place, replica) as batches:
            objective = Consistency(spec, batches, loaded.model, vocab_size, place, compiled=use_compile)
            learner.resume(Path(checkpoint_dir), objective)
            return run(
                learner,
                objective,
                Path(checkpoint_dir),
                cadence=cadence,
                validator=None if validation is None else Validator(validation, loaded.training, place),
                on_step=on_step,
                title=f"distil, {spec.states} states",
                progress=progress,
            )


def check_teacher(loaded: LoadedModel, vocab_size: int, length: int, image_shape: ImageShape | None) -> None:
    """A teacher must be of the uniform process, and of the data's sizes.

    Raises:
        SpecError: what does not fit.
    """
    if loaded.process.name != "uniform":
        raise SpecError(
            f"teacher: the model at {loaded.path} is of process '{loaded.process.name}', but this distillation needs "
            "'uniform'; train one of uniform noise"
        )
    for name, got, expected in (
        ("vocab_size", loaded.vocab_size, vocab_size),
        ("length", loaded.length, length),
        ("image_shape", loaded.image_shape, image_shape),
    ):
        if got != expected:
            raise SpecError(
                f"teacher: the model at {loaded.path} has {name} {got}, the data has {expected}; distil it on the data "
                "that it was trained on"
            )
