"""fit's options: the absorbing process, accumulation, spikes, compilation, and what is counted."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

from pairflow import checkpoint, learner, models
from pairflow.checkpoint import load_model
from pairflow.errors import SpecError, TrainingError
from pairflow.presets import SIZES
from pairflow.processes import AbsorbingProcess, UniformProcess
from pairflow.sampling import sample
from pairflow.spec import ModelSpec, TrainingSpec
from pairflow.spikes import SpikeGuard
from pairflow.throughput import peak_flops, training_flops
from pairflow.training import fit

VOCAB_SIZE, LENGTH = 5, 6
MODEL = ModelSpec(hidden_size=16, num_layers=1, num_heads=2, cond_size=8)
SPEC = TrainingSpec(num_steps=12, batch_size=8, warmup_steps=3, learning_rate=1e-2)
MASKED = SPEC.model_copy(update={"process": "absorbing", "coupling": "independent"})
TARGET = np.random.default_rng(0).integers(VOCAB_SIZE, size=(20, LENGTH), dtype=np.uint8)
SOURCE = np.random.default_rng(1).integers(VOCAB_SIZE, size=(20, LENGTH), dtype=np.uint8)


def train(directory, target=TARGET, source=SOURCE, *, model=MODEL, spec=SPEC, **options):
    settings: dict[str, Any] = {"vocab_size": VOCAB_SIZE, "checkpoint_every": 5, "device": "cpu", "progress": False}
    source = source if spec.coupling == "paired" else None
    return fit(model, spec, target, source, checkpoint_dir=directory, **{**settings, **options})


def tensors_of(result):
    return load_file(result.checkpoint / "tensors.safetensors")


def interrupt_at(step):
    def on_step(metrics):
        if metrics.step == step:
            raise KeyboardInterrupt

    return on_step


@pytest.mark.parametrize("spec", [MASKED, SPEC.model_copy(update={"accumulate": 4})])
def test_resuming_is_bit_exact_with_every_option(tmp_path, spec):
    model = MODEL.model_copy(update={"dropout": 0.1})
    whole = train(tmp_path / "whole", model=model, spec=spec, validation=TARGET[:7])
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "cut", model=model, spec=spec, on_step=interrupt_at(8), log_every=1)
    resumed = train(tmp_path / "cut", model=model, spec=spec, validation=TARGET[:7])
    expected, got = tensors_of(whole), tensors_of(resumed)
    assert all(torch.equal(expected[name], got[name]) for name in expected)
    assert (resumed.loss, resumed.validation_nll) == (whole.loss, whole.validation_nll)


def test_the_absorbing_process_trains_a_network_that_reads_a_mask_and_never_says_it(tmp_path):
    """One repeated row has no entropy, and its masked tokens are filled in from the first step on."""
    spec = MASKED.model_copy(update={"num_steps": 200, "ema_decay": 0.9})
    target = np.tile(TARGET[:1], (16, 1))
    result = train(tmp_path, target, spec=spec, validation=target)
    assert result.validation_nll is not None
    assert result.validation_nll < 0.1 < math.log(VOCAB_SIZE)
    assert result.validation_bits == result.validation_nll / math.log(2)
    loaded = load_model(tmp_path, device="cpu")
    assert (loaded.process.name, loaded.process.num_states, loaded.vocab_size) == ("absorbing", 6, 5)
    assert loaded.model.state_dict()["embedding.weight"].shape[0] == 6
    assert loaded.model.state_dict()["head.weight"].shape[0] == 5
    settings: dict[str, Any] = {"num_samples": 64, "num_steps": 1, "length": LENGTH, "device": "cpu", "progress": False}
    drawn = sample(loaded.model, loaded.process, **settings).tokens
    assert (drawn == target[0]).mean() > 0.9


@pytest.mark.parametrize("architecture", ["dit", "unet"])
def test_networks_embed_a_mask_and_do_not_predict_it(architecture):
    spec = SIZES[architecture]["tiny"]
    model = models.build(spec, vocab_size=4, num_states=5, length=16, image_shape=(1, 4, 4))
    logits = model(torch.full((2, 16), 4), torch.zeros(2))
    assert logits.shape == (2, 16, 4)
    rows = model.state_dict()["embedding.weight"]
    assert rows.shape[0] == 5
    assert all((rows[4] != rows[token]).any() for token in range(4))
    with pytest.raises(SpecError, match="num_states: got 3, expected at least the vocabulary's 4"):
        models.build(spec, vocab_size=4, num_states=3, length=16, image_shape=(1, 4, 4))


def test_the_absorbing_process_has_no_pairs(tmp_path):
    with pytest.raises(ValidationError, match="process 'absorbing' needs coupling 'independent', got 'paired'"):
        TrainingSpec(process="absorbing")
    with pytest.raises(SpecError, match="process 'absorbing' needs coupling 'independent', got 'paired'"):
        train(tmp_path, spec=SPEC.model_copy(update={"process": "absorbing"}))


def test_the_network_of_the_absorbing_process_is_always_told_the_same_time(tmp_path, monkeypatch):
    times: list[Any] = []
    forward = models.Dit.forward

    def told(self, x_t, t):
        times.append(t.clone())
        return forward(self, x_t, t)

    monkeypatch.setattr(models.Dit, "forward", told)
    train(tmp_path, spec=MASKED, validation=TARGET[:3])
    assert times
    assert all((t == 0).all() for t in times)


def test_accumulation_computes_the_whole_batchs_gradient(tmp_path):
    """The same rows, times and noise in four parts: the weights differ by rounding."""
    whole = tensors_of(train(tmp_path / "whole"))
    sizes, loss = [], UniformProcess.loss

    def spy(self, logits, *arguments):
        sizes.append(len(logits))
        return loss(self, logits, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(UniformProcess, "loss", spy)
        parts = tensors_of(train(tmp_path / "parts", spec=SPEC.model_copy(update={"accumulate": 4})))
    assert sizes == [2] * 4 * 12
    for name in whole:
        if name.startswith("model."):
            torch.testing.assert_close(parts[name], whole[name], rtol=1e-3, atol=1e-4)
    with pytest.raises(ValidationError, match="accumulate must divide batch_size, got 3 and 8"):
        TrainingSpec(batch_size=8, accumulate=3)


@pytest.mark.parametrize("factor", [10.0, None])
def test_a_leap_of_the_loss_names_the_step_and_the_last_good_checkpoint(tmp_path, monkeypatch, factor):
    honest, calls = UniformProcess.loss, []

    def loss(self, *arguments):
        calls.append(1)
        return honest(self, *arguments) * (1 if len(calls) < 64 else 1000)

    monkeypatch.setattr(UniformProcess, "loss", loss)
    spec = SPEC.model_copy(update={"num_steps": 70})
    if factor is None:
        assert train(tmp_path, spec=spec, spike_factor=None).steps == 70
        return
    message = r"the loss leapt at step 65: to \S+ nats per token, from a running median of 1\.\S+; last good .*00000060"
    with pytest.raises(TrainingError, match=message):
        train(tmp_path, spec=spec, log_every=2)
    assert [step for step, _ in checkpoint.steps(tmp_path)] == [55, 60]


def test_a_spike_lasts_is_large_and_comes_after_the_warm_up():
    def faults(losses, **changes):
        guard = SpikeGuard(**{"factor": 10.0, "floor": 1.0, "first_step": 0, **changes})
        return [step for step, loss in enumerate(losses, start=1) if guard.fault(step, loss, 1.0)]

    calm = [0.2] * 60
    assert faults([*calm, 3.0, 3.0, 3.0]) == [62, 63]
    assert faults([*calm, 3.0, 0.2, 0.2, 3.0, 0.2, 0.2, 50.0]) == [], "one odd batch"
    assert faults([*calm, 0.9, 0.9, 0.9, 0.9]) == [], "ten times nothing is still below the floor"
    assert faults([*calm, 1.9, 1.9, 1.9]) == [], "less than ten times the median"
    assert faults([*calm, 3.0, 3.0, 3.0], factor=None) == []
    assert faults([9.0] * 30 + [0.2] * 48 + [3.0] * 3, first_step=30) == []
    assert faults([9.0] * 30 + [0.2] * 54 + [3.0] * 3, first_step=30) == [86, 87]
    assert faults([*calm, math.nan], factor=None) == [61]
    assert "gradient norm inf" in str(SpikeGuard(None, floor=0.0, first_step=9).fault(1, 0.5, math.inf))


def test_networks_are_compiled_when_asked_and_by_default_on_cuda_only(tmp_path, monkeypatch):
    compiled: list[Any] = []

    def not_really(model):
        compiled.append(model)
        return model

    monkeypatch.setattr(learner.torch, "compile", not_really)
    plain = tensors_of(train(tmp_path / "default"))
    assert compiled == []
    asked = tensors_of(train(tmp_path / "asked", compiled=True))
    assert len(compiled) == 1
    assert isinstance(compiled[0], models.Dit)
    assert plain.keys() == asked.keys()


def test_the_operations_of_a_row_add_up():
    """By hand: two operations a multiply-add, and twice the forward's again for the backward pass."""
    width, cond, layers, D = 16, 8, 1, LENGTH
    model = models.build(MODEL, vocab_size=VOCAB_SIZE, length=D)
    per_token = layers * (3 * width**2 + width**2 + 8 * width**2) + width * VOCAB_SIZE
    attention = layers * 2 * D * D * width
    per_row = 128 * cond + cond * cond + layers * cond * 6 * width + cond * 2 * width
    first_layer = 128 * cond  # its input, the time's features, needs no gradient
    macs = D * per_token + attention + per_row
    before = torch.get_rng_state()
    assert training_flops(model, D) == 2 * (3 * macs - first_layer)
    assert torch.equal(torch.get_rng_state(), before)
    assert next(model.parameters()).device.type == "cpu"


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA L4", 121e12),
        ("Some other accelerator", None),
    ],
)
def test_peaks_go_by_name(name, peak):
    assert peak_flops(name) == peak


def test_utilisation_is_what_was_done_by_what_can_be(tmp_path, monkeypatch):
    """With a pretended GPU: tokens a second, times operations a token, over its peak; None on a CPU."""
    from pairflow import loop

    seen: list[Any] = []
    train(tmp_path / "cpu", on_step=seen.append)
    assert {metrics.flop_utilisation for metrics in seen} == {None}
    pretended = learner.Learner.start(
        MODEL, SPEC, UniformProcess(VOCAB_SIZE), {"image_shape": None, "length": LENGTH}, torch.device("cpu")
    )
    pretended.device = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA A100-SXM4-80GB")
    reporter = loop._Reporter(pretended, tmp_path)
    pretended.step, pretended._pending = 3, [(torch.tensor(1.0), torch.tensor(1.0))] * 3
    metrics = reporter.report(None)
    per_token = training_flops(pretended.model, LENGTH) / LENGTH
    assert metrics.flop_utilisation == pytest.approx(metrics.tokens_per_second * per_token / 312e12)


def test_processes_differ_in_what_a_network_reads():
    assert (UniformProcess(7).num_states, AbsorbingProcess(7).num_states) == (7, 8)


def test_sizes_may_be_numpys_numbers(tmp_path):
    unet = ModelSpec(architecture="unet", hidden_size=8, num_heads=1, cond_size=8, channel_mults=(1,), num_res_blocks=1)
    shape: Any = np.array([1, 2, 3])
    trained = train(tmp_path, model=unet, vocab_size=np.int64(VOCAB_SIZE), image_shape=shape)
    loaded = load_model(trained.checkpoint, device="cpu")
    assert (loaded.vocab_size, loaded.image_shape) == (VOCAB_SIZE, (1, 2, 3))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"vocab_size": 5.0}, r"vocab_size: got 5\.0, expected a whole number"),
        ({"vocab_size": 1}, "vocab_size: got 1, expected at least 2"),
        ({"image_shape": (1, 2, 3.0)}, r"image_shape: got 3\.0, expected a whole number"),
        ({"image_shape": (2, 3)}, r"image_shape: got \(2, 3\), expected \(C, H, W\)"),
        ({"checkpoint_every": 2.5}, r"checkpoint_every: got 2\.5, expected a whole number"),
        ({"model": MODEL.model_copy(update={"num_layers": 0})}, "num_layers: .*greater than or equal to 1"),
    ],
)
def test_sizes_that_are_no_whole_numbers_are_refused_at_once(tmp_path, options, says):
    with pytest.raises(SpecError, match=says):
        train(tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_marginals_are_of_tokens_of_any_integers(tmp_path):
    spec = SPEC.model_copy(update={"process": "marginal", "coupling": "independent"})
    narrow, wide = (
        train(tmp_path / np.dtype(each).name, TARGET.astype(each), spec=spec) for each in (np.uint8, np.uint64)
    )
    assert all(torch.equal(value, tensors_of(wide)[name]) for name, value in tensors_of(narrow).items())
