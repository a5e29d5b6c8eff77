"""fit: resumed runs, metrics, learning, divergence and data that does not fit."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from pairflow import checkpoint
from pairflow.batches import Batches
from pairflow.errors import SpecError, TrainingError
from pairflow.learner import learning_rate
from pairflow.spec import ModelSpec, TrainingSpec
from pairflow.training import fit

VOCAB_SIZE, LENGTH = 5, 6
MODEL = ModelSpec(hidden_size=16, num_layers=1, num_heads=2, cond_size=8, dropout=0.1)
SPEC = TrainingSpec(num_steps=12, batch_size=8, warmup_steps=3, learning_rate=1e-2)
TARGET = np.random.default_rng(0).integers(VOCAB_SIZE, size=(20, LENGTH), dtype=np.uint8)
SOURCE = np.random.default_rng(1).integers(VOCAB_SIZE, size=(20, LENGTH), dtype=np.uint8)


def train(directory, target=TARGET, source=SOURCE, *, model=MODEL, spec=SPEC, **options):
    settings = {"vocab_size": VOCAB_SIZE, "checkpoint_every": 5, "device": "cpu", "progress": False}
    return fit(model, spec, target, source, checkpoint_dir=directory, **{**settings, **options})


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """(folder, result) of one undisturbed run with validation; do not write to it."""
    directory = tmp_path_factory.mktemp("finished")
    return directory, train(directory, validation=TARGET[:7])


def interrupt_at(step):
    def on_step(metrics):
        if metrics.step == step:
            raise KeyboardInterrupt

    return on_step


@pytest.mark.parametrize("stop", [1, 5, 8, 10, 11])
def test_an_interrupted_run_ends_bit_identical_to_an_undisturbed_one(tmp_path, finished, stop):
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, on_step=interrupt_at(stop), log_every=1, validation=TARGET[:7])
    resumed = train(tmp_path, log_every=3, validation=TARGET[:7])
    expected, got = (load_file(path / "tensors.safetensors") for path in (finished[1].checkpoint, resumed.checkpoint))
    assert expected.keys() == got.keys()
    assert {name.split(".")[0] for name in got} == {"model", "ema", "optimizer"}
    assert all(torch.equal(expected[name], got[name]) for name in expected)
    assert (resumed.loss, resumed.validation_nll) == (finished[1].loss, finished[1].validation_nll)


def test_gradients_are_there_whatever_an_earlier_interruption_left(tmp_path, finished):
    """Ctrl-C between the lines of torch.no_grad() leaves gradients off for the whole process."""
    with torch.no_grad():
        trained = train(tmp_path, validation=TARGET[:7])
        assert not torch.is_grad_enabled()
    assert (trained.loss, trained.validation_nll) == (finished[1].loss, finished[1].validation_nll)


def test_the_callers_random_state_is_left_alone(tmp_path):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    train(tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_finished_run_returns_at_once(finished):
    before = sorted(path.stat().st_mtime_ns for path in finished[0].rglob("*"))
    assert train(finished[0], on_step=interrupt_at(12)) == finished[1]
    assert sorted(path.stat().st_mtime_ns for path in finished[0].rglob("*")) == before


def test_only_the_last_two_checkpoints_are_kept_and_partial_ones_ignored(finished):
    assert [step for step, _ in checkpoint.steps(finished[0])] == [10, 12]
    assert sorted(path.name for path in finished[0].iterdir()) == ["step-00000010", "step-00000012"]
    assert finished[1].checkpoint == finished[0] / "step-00000012"
    (finished[0] / ".partial-step-00000099-1").mkdir()
    (finished[0] / "step-00000099").mkdir()
    assert checkpoint.latest(finished[0]) == finished[1].checkpoint
    (finished[0] / ".partial-step-00000099-1").rmdir()
    (finished[0] / "step-00000099").rmdir()


def test_metrics_arrive_at_their_steps(tmp_path):
    seen: list[Any] = []
    result = train(tmp_path, on_step=seen.append, log_every=4, validation=TARGET[:3], validate_every=6)
    assert [metrics.step for metrics in seen] == [4, 5, 6, 8, 10, 12]
    assert [metrics.step for metrics in seen if metrics.validation_nll is not None] == [6, 12]
    assert seen[-1].validation_nll == result.validation_nll
    assert all(metrics.tokens_per_second > 0 and metrics.grad_norm > 0 for metrics in seen)
    assert [metrics.learning_rate for metrics in seen] == [learning_rate(SPEC, m.step - 1) for m in seen]
    assert result.steps == 12
    assert result.seconds > 0


def test_both_couplings_learn_one_repeated_row(tmp_path):
    """Data of one row has no entropy: the loss and the held-out bound go towards zero."""
    target = np.tile(TARGET[:1], (16, 1))
    for coupling, source in (("independent", None), ("paired", SOURCE[:16])):
        spec = SPEC.model_copy(update={"coupling": coupling, "num_steps": 300, "ema_decay": 0.9})
        model = MODEL.model_copy(update={"dropout": 0.0})
        result = train(tmp_path / coupling, target, source, model=model, spec=spec, validation=target)
        assert result.validation_nll is not None
        assert result.validation_nll < 0.1 < math.log(VOCAB_SIZE)


def test_batches_are_epochs_laid_end_to_end():
    target = np.arange(10, dtype=np.uint16)[:, None]
    batches = Batches(target, target + 10, batch_size=4, seed=7, device=torch.device("cpu"))
    order = np.concatenate([batches.rows(step) for step in range(10)])
    assert [sorted(order[start : start + 10]) for start in range(0, 40, 10)] == [list(range(10))] * 4
    assert order[:10].tolist() != order[10:20].tolist()
    again = Batches(target, None, batch_size=4, seed=7, device=torch.device("cpu"))
    assert [again.rows(step).tolist() for step in (9, 2)] == [order[36:40].tolist(), order[8:12].tolist()]
    x_1, x_0 = batches.batch(3)
    assert x_0 is not None
    assert torch.equal(x_0, x_1 + 10)
    large = Batches(target, None, batch_size=25, seed=7, device=torch.device("cpu"))
    assert sorted(large.rows(0)[:20]) == sorted([*range(10)] * 2)


def test_learning_rate_warms_up_and_then_falls_or_stays():
    cosine = TrainingSpec(num_steps=101, warmup_steps=1, learning_rate=1e-3, min_learning_rate=1e-5)
    assert learning_rate(cosine, 0) == pytest.approx(1e-3)
    assert learning_rate(cosine, 1) == pytest.approx(1e-3)
    assert learning_rate(cosine, 100) == pytest.approx(1e-5)
    constant = TrainingSpec(num_steps=10, warmup_steps=4, learning_rate=1e-3, lr_schedule="constant")
    rates = [learning_rate(constant, step) for step in range(10)]
    assert rates == pytest.approx([0.25e-3, 0.5e-3, 0.75e-3] + [1e-3] * 7)


def test_divergence_names_the_step_and_the_last_good_checkpoint(tmp_path, monkeypatch):
    from pairflow.processes import UniformProcess

    honest, calls = UniformProcess.loss, []

    def loss(self, *arguments):
        calls.append(1)
        return honest(self, *arguments) * (math.nan if len(calls) == 8 else 1)

    monkeypatch.setattr(UniformProcess, "loss", loss)
    with pytest.raises(TrainingError, match=r"at step 8: loss nan.*last good checkpoint: .*step-00000005"):
        train(tmp_path)
    assert [step for step, _ in checkpoint.steps(tmp_path)] == [5]


INDEPENDENT = SPEC.model_copy(update={"coupling": "independent"})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": None}, "source: got none, but coupling 'paired' needs each row's source"),
        ({"spec": INDEPENDENT}, "source: got an array, but coupling 'independent' draws its own"),
        ({"source": SOURCE[:3]}, "source: got 3 rows, expected 20"),
        ({"source": SOURCE[:, :3]}, "source: got rows of 3 tokens, expected 6"),
        ({"source": SOURCE + 3}, "source: got tokens from 3 to 7, expected 0 to 4"),
        ({"vocab_size": 4}, "target: got tokens from 0 to 4, expected 0 to 3"),
        ({"target": TARGET.astype(np.int8) - 1}, "target: got tokens from -1"),
        ({"target": TARGET.astype(float)}, "target: got dtype float64, expected integers"),
        ({"target": TARGET[0]}, r"target: got shape \(6,\), expected a numpy array of tokens \[M, D\]"),
        ({"target": TARGET.tolist()}, "target: got list"),
        ({"target": TARGET[:0]}, "expected at least one row"),
        ({"validation": TARGET[:, :2]}, "validation: got rows of 2 tokens"),
        ({"checkpoint_every": 0}, "checkpoint_every: got 0"),
        ({"log_every": -1}, "log_every: got -1"),
        ({"validate_every": 0}, "validate_every: got 0"),
        ({"spec": SPEC.model_copy(update={"min_learning_rate": 0.1})}, "min_learning_rate: got 0.1"),
        ({"image_shape": (1, 2, 2)}, "image_shape"),
    ],
)
def test_data_that_does_not_fit_is_named_before_anything_is_written(tmp_path, changes, message):
    with pytest.raises(SpecError, match=message):
        train(tmp_path / "run", **changes)
    assert not (tmp_path / "run").exists()
