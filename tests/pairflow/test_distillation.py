"""Distillation: the Gaussian operator, the shared trajectories, the objective, rounds, resuming and bad teachers."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from scipy import stats

from pairflow import checkpoint
from pairflow.batches import Batches
from pairflow.checkpoint import load_model
from pairflow.distillation.consistency import Consistency, gap
from pairflow.distillation.dcd import distill
from pairflow.distillation.operator import GaussianOperator
from pairflow.errors import CheckpointError, SpecError
from pairflow.sampling import sample
from pairflow.spec import DistillationSpec, ModelSpec, SamplingSpec, TrainingSpec
from pairflow.training import fit

VOCAB_SIZE, LENGTH = 5, 6
MODEL = ModelSpec(hidden_size=16, num_layers=1, num_heads=2, cond_size=8, dropout=0.1)
TARGET = np.random.default_rng(0).integers(VOCAB_SIZE, size=(20, LENGTH), dtype=np.uint8)
SOURCE = np.random.default_rng(1).integers(VOCAB_SIZE, size=(20, LENGTH), dtype=np.uint8)
TRAINING = TrainingSpec(num_steps=4, batch_size=8, warmup_steps=1, learning_rate=1e-2, coupling="independent")
SPEC = DistillationSpec(num_steps=12, batch_size=8, update_teacher_every=5, learning_rate=1e-2)
CPU = torch.device("cpu")


@pytest.mark.parametrize("states", ["gaussian", "paired"])
def test_the_states_of_a_batch_are_nested_and_as_noisy_as_their_times_say(states):
    """A token kept in the noisier state is kept in the other; 2 z-tests at |z| < 4.5, 1 in 73,000 seeds fails."""
    target = np.zeros((4000, 10), np.uint8)
    spec = SPEC.model_copy(update={"batch_size": 4000, "states": states})
    source = np.full_like(target, 3) if states == "paired" else None
    batches = Batches(target, source, batch_size=4000, seed=0, device=CPU)
    objective = Consistency(spec, batches, torch.nn.Linear(1, 1), VOCAB_SIZE, CPU)
    noisier, t, cleaner, t_teacher = objective.draw(10, torch.Generator().manual_seed(0))
    assert (t_teacher >= t).all()
    assert ((noisier == 0) <= (cleaner == 0)).all()
    assert ((cleaner == noisier) | (cleaner == 0)).all()
    for x_t, time in ((noisier, t), (cleaner, t_teacher)):
        stray = 0.0 if states == "paired" else 1 / VOCAB_SIZE
        expected = time.double() + (1 - time.double()) * stray
        deviation = (10 * expected * (1 - expected)).sum().sqrt() / x_t.numel()
        assert abs((x_t == 0).double().mean() - expected.mean()) < 4.5 * deviation
    operator = GaussianOperator(VOCAB_SIZE)
    ends = [float(operator.kappa(math.sqrt(1 / (1 + math.exp(gamma))))) for gamma in (-1.0, -4.0)]
    assert ends[0] <= t.min() < ends[0] + 1e-3
    assert t_teacher.max() == pytest.approx(ends[1], abs=1e-6)


def test_the_gap_doubles_every_round_up_to_the_whole_range():
    spec = DistillationSpec(update_teacher_every=2)
    assert [gap(spec, step) * 64 for step in (0, 1, 2, 3, 4, 12, 13, 14, 10**6)] == [1, 1, 2, 2, 4, 64, 64, 64, 64]


def test_the_loss_is_the_divergence_of_the_predictions():
    class Says(torch.nn.Module):
        def __init__(self, logits):
            super().__init__()
            self.register_buffer("logits", logits)

        def forward(self, x_t, t):
            return self.logits[x_t]  # type: ignore[index]

    generator = torch.Generator().manual_seed(0)
    taught, said = (torch.randn(VOCAB_SIZE, VOCAB_SIZE, generator=generator) for _ in range(2))
    batches = Batches(TARGET, None, batch_size=8, seed=0, device=CPU)
    objective = Consistency(SPEC, batches, Says(taught), VOCAB_SIZE, CPU)
    noisier, t, cleaner, t_teacher = objective.draw(0, generator)
    loss = objective.loss(Says(said), noisier, t, cleaner, t_teacher)
    expected = stats.entropy(taught.softmax(-1)[cleaner], said.softmax(-1)[noisier], axis=-1)
    np.testing.assert_allclose(loss, expected, rtol=1e-4)
    assert objective.loss(Says(taught), cleaner, t, cleaner, t_teacher).abs().max() < 1e-6


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """Folder of a briefly trained model; do not write to it."""
    folder = tmp_path_factory.mktemp("teacher")
    fit(MODEL, TRAINING, TARGET, vocab_size=VOCAB_SIZE, checkpoint_dir=folder, device="cpu", progress=False)
    return folder


def run(folder, teacher, target=TARGET, source=None, *, spec=SPEC, **options):
    settings: dict[str, Any] = {"vocab_size": VOCAB_SIZE, "checkpoint_every": 5, "device": "cpu", "progress": False}
    return distill(spec, teacher, target, source, checkpoint_dir=folder, **{**settings, **options})


def interrupt_at(step):
    def on_step(metrics):
        if metrics.step == step:
            raise KeyboardInterrupt

    return on_step


@pytest.mark.parametrize("stop", [3, 5, 6, 11])
@pytest.mark.parametrize("states", ["gaussian", "paired"])
def test_an_interrupted_distillation_ends_bit_identical(tmp_path, teacher, stop, states):
    """Also when it stops at a checkpoint (5), and just before and after the teacher is replaced."""
    spec = SPEC.model_copy(update={"states": states, "accumulate": 2})
    source = SOURCE if states == "paired" else None
    whole = run(tmp_path / "whole", teacher, source=source, spec=spec, validation=TARGET[:5])
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", teacher, source=source, spec=spec, on_step=interrupt_at(stop), log_every=1)
    resumed = run(tmp_path / "cut", teacher, source=source, spec=spec, validation=TARGET[:5])
    expected, got = (load_file(result.checkpoint / "tensors.safetensors") for result in (whole, resumed))
    assert {name.split(".")[0] for name in got} == {"model", "ema", "teacher", "optimizer"}
    assert all(torch.equal(expected[name], got[name]) for name in expected)
    assert (whole.loss, whole.validation_nll) == (resumed.loss, resumed.validation_nll)


def test_the_teacher_is_replaced_by_the_students_average_after_every_round(tmp_path, teacher):
    run(tmp_path, teacher, checkpoint_every=1, spec=SPEC.model_copy(update={"num_steps": 6}))
    tensors = {step: load_file(path / "tensors.safetensors") for step, path in checkpoint.steps(tmp_path)}
    start = checkpoint.latest(teacher)
    assert start is not None
    first = load_file(start / "tensors.safetensors")
    name = "head.weight"
    assert torch.equal(tensors[5][f"teacher.{name}"], first[f"ema.{name}"])
    assert torch.equal(tensors[6][f"teacher.{name}"], tensors[5][f"ema.{name}"])
    assert not torch.equal(tensors[5][f"ema.{name}"], first[f"ema.{name}"])


def test_a_distilled_model_loads_and_is_distilled_again(tmp_path, teacher):
    run(tmp_path / "first", teacher)
    loaded = load_model(tmp_path / "first", device="cpu")
    assert (loaded.distillation, loaded.training, loaded.step) == (SPEC, TRAINING, 12)
    assert load_model(teacher, device="cpu").distillation is None
    again = run(tmp_path / "second", tmp_path / "first")
    assert load_model(again.checkpoint, device="cpu").state["teacher_sha256"] == loaded.state["sha256"]
    with pytest.raises(CheckpointError, match="belongs to another run: its teacher_sha256"):
        run(tmp_path / "first", tmp_path / "first")


def test_a_teacher_that_does_not_fit_is_named(tmp_path, teacher):
    masked = TRAINING.model_copy(update={"process": "absorbing"})
    fit(MODEL, masked, TARGET, vocab_size=VOCAB_SIZE, checkpoint_dir=tmp_path / "m", device="cpu", progress=False)
    run(tmp_path / "distilled", teacher)
    cases: list[tuple[dict[str, Any], str]] = [
        ({"vocab_size": 6}, "teacher: the model at .* has vocab_size 5, the data has 6"),
        ({"target": TARGET[:, :4]}, "has length 6, the data has 4"),
        ({"image_shape": (1, 2, 3)}, r"has image_shape None, the data has \(1, 2, 3\)"),
        ({"teacher": tmp_path / "m"}, "process 'absorbing', but this distillation needs 'uniform'"),
        ({"teacher": tmp_path / "distilled", "vocab_size": 7}, "has vocab_size 5, the data has 7"),
        ({"source": SOURCE}, "source: got an array"),
        ({"spec": SPEC.model_copy(update={"states": "paired"})}, "source: got none"),
        ({"spec": SPEC.model_copy(update={"accumulate": 3})}, "accumulate must divide batch_size, got 3 and 8"),
        ({"log_every": 0}, "log_every: got 0"),
    ]
    for changes, message in cases:
        with pytest.raises(SpecError, match=message):
            run(tmp_path / "run", **{"teacher": teacher, **changes})
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        run(tmp_path / "run", tmp_path / "nowhere")
    assert not (tmp_path / "run").exists()


def test_the_noise_range_has_a_direction():
    with pytest.raises(ValidationError, match="gamma_cleanest must be below gamma_noisiest"):
        DistillationSpec(gamma_cleanest=-1.0)


@pytest.mark.slow
def test_distillation_makes_one_step_samples_better(tmp_path):
    """Two strings that differ everywhere: one factorised step mixes them, a consistent student mixes them less."""
    target = np.array([[0] * LENGTH, [1] * LENGTH], np.uint8)
    model = MODEL.model_copy(update={"dropout": 0.0, "hidden_size": 32})
    training = TrainingSpec(num_steps=400, batch_size=64, learning_rate=5e-3, coupling="independent", ema_decay=0.9)
    spec = DistillationSpec(num_steps=350, update_teacher_every=50, batch_size=64, learning_rate=2e-3, ema_decay=0.9)
    fit(model, training, target, vocab_size=2, checkpoint_dir=tmp_path / "t", device="cpu", progress=False)
    distill(spec, tmp_path / "t", target, vocab_size=2, checkpoint_dir=tmp_path / "s", device="cpu", progress=False)

    def whole(folder):
        loaded = load_model(folder, device="cpu")
        ancestral = SamplingSpec(final_step="ancestral")
        settings: dict[str, Any] = {
            "num_samples": 2000,
            "num_steps": 1,
            "length": LENGTH,
            "device": "cpu",
            "progress": False,
        }
        tokens = sample(loaded.model, loaded.process, ancestral, **settings).tokens
        return (tokens == tokens[:, :1]).all(axis=1).mean()

    before, after = whole(tmp_path / "t"), whole(tmp_path / "s")
    assert after > before + 0.15  # 0.24 to 0.50 over three seeds


def test_sizes_may_be_numpys_numbers(tmp_path):
    teacher = fit(MODEL, TRAINING, TARGET, vocab_size=VOCAB_SIZE, checkpoint_dir=tmp_path / "teacher", progress=False)
    settings: dict[str, Any] = {"checkpoint_dir": tmp_path / "student", "device": "cpu", "progress": False}
    with pytest.raises(SpecError, match=r"vocab_size: got 5\.0, expected a whole number"):
        distill(SPEC, teacher.checkpoint, TARGET, vocab_size=5.0, **settings)  # type: ignore[arg-type]
    student = distill(SPEC, teacher.checkpoint, TARGET, vocab_size=np.int64(VOCAB_SIZE), **settings)  # type: ignore[arg-type]
    assert load_model(student.checkpoint, device="cpu").vocab_size == VOCAB_SIZE
