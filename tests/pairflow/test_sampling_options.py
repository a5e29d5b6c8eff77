"""Samplers: draws, nucleus, dtypes, and settings that do not fit."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from pairflow import models
from pairflow.errors import SpecError
from pairflow.processes import UniformProcess, build
from pairflow.sampling import draw_categorical, nucleus, sample
from pairflow.spec import EvaluationSpec, ModelSpec, SamplingSpec

from .exact_denoiser import LENGTH, VOCAB_SIZE, exact_model


def draw(**changes):
    process = UniformProcess(VOCAB_SIZE)
    settings: dict[str, Any] = {"num_samples": 64, "num_steps": 4, "length": LENGTH, "device": "cpu", "progress": False}
    return sample(exact_model(process), process, **{**settings, **changes})


def test_draws_follow_the_inverse_cdf_and_never_pick_probability_zero():
    probs = torch.tensor([[[0.0, 0.25, 0.0, 0.75, 0.0]]], dtype=torch.float64)
    levels = {0.0: 1, 0.2499: 1, 0.25: 3, 0.9: 3, math.nextafter(1, 0): 3}
    for level, token in levels.items():
        assert draw_categorical(probs, torch.tensor([[level]], dtype=torch.float64)).item() == token


def test_the_nucleus_is_the_fewest_likeliest_tokens():
    probs = torch.tensor([[[0.1, 0.4, 0.2, 0.3], [0.25, 0.25, 0.25, 0.25]]], dtype=torch.float64)
    expected = {
        0.4: [[0, 1, 0, 0], [0.5, 0.5, 0, 0]],
        0.5: [[0, 4 / 7, 0, 3 / 7], [0.5, 0.5, 0, 0]],
        0.71: [[0, 4 / 9, 2 / 9, 3 / 9], [1 / 3, 1 / 3, 1 / 3, 0]],
        1.0: probs[0].tolist(),
    }
    for top_p, kept in expected.items():
        torch.testing.assert_close(nucleus(probs, top_p)[0], torch.tensor(kept, dtype=torch.float64))


def test_tokens_come_in_the_smallest_dtype():
    class Flat(nn.Module):
        def forward(self, x_t, t):
            return torch.zeros(*x_t.shape, 300)

    settings: dict[str, Any] = {"num_samples": 2, "num_steps": 1, "length": 2, "device": "cpu", "progress": False}
    assert sample(Flat(), UniformProcess(300), **settings).tokens.dtype == np.uint16
    assert draw(num_samples=2).tokens.dtype == np.uint8


class Constant(nn.Module):
    """Logits that do not depend on the state."""

    def __init__(self, logits: list[float]) -> None:
        super().__init__()
        self.logits = torch.tensor(logits)

    def forward(self, x_t, t):
        return self.logits.repeat(*x_t.shape, 1)


SETTINGS: dict[str, Any] = {"num_samples": 8, "num_steps": 2, "length": 3, "device": "cpu", "progress": False}


@pytest.mark.parametrize("name", ["uniform", "absorbing"])
@pytest.mark.parametrize("logit", [math.nan, math.inf])
@pytest.mark.parametrize("changes", [{}, {"num_steps": 0}])
def test_logits_that_are_not_finite_are_no_samples(name, logit, changes):
    with pytest.raises(SpecError, match="model: got logits that are not finite at t = "):
        sample(Constant([0.0, logit, 1.0]), build(name, 3), **{**SETTINGS, **changes})


def test_a_model_may_rule_a_token_out():
    assert set(sample(Constant([0.0, -math.inf, 0.0]), build("absorbing", 3), **SETTINGS).tokens.flat) <= {0, 2}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_steps": -1}, "num_steps: got -1, expected at least 0"),
        ({"num_steps": 1025}, "num_steps: got 1025, expected at most 1024"),
        ({"num_samples": 0}, "num_samples: got 0"),
        ({"batch_size": 0}, "batch_size: got 0"),
        ({"start": -1}, "start: got -1"),
        ({"length": 0}, "length: got 0, expected at least 1"),
        ({"num_steps": 4.0}, r"num_steps: got 4\.0, expected a whole number"),
        ({"seed": -1}, "seed: got -1, expected 0 to 9,223,372,036,854,775,807"),
        ({"seed": 2**63}, f"seed: got {2**63}, expected 0 to"),
        ({"device": "cuda:99"}, "device: got 'cuda:99'"),
        ({"device": "gpu!"}, "device: got 'gpu!'"),
        ({"device": "meta"}, "only 'cpu' and 'cuda'"),
    ],
)
def test_bad_settings_are_named(changes, message):
    with pytest.raises(SpecError, match=message):
        draw(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sampler": "heun"}, "'ancestral', 'euler' or 'psi'"),
        ({"final_step": "best"}, "'ancestral', 'greedy' or 'argmax'"),
        ({"top_p": 0.0}, "greater than 0"),
        ({"top_p": 1.1}, "less than or equal to 1"),
        ({"sampler": "psi"}, "sampler 'psi' needs corrections"),
        ({"corrections": 1.0}, "sampler 'ancestral' takes no corrections"),
    ],
)
def test_samplers_that_do_not_exist_are_refused(changes, message):
    for spec_type in (SamplingSpec, EvaluationSpec):
        with pytest.raises(ValidationError, match=message):
            spec_type(**changes)


@pytest.mark.parametrize("architecture", ["dit", "unet"])
def test_a_length_that_is_not_the_models_is_refused(architecture):
    spec = ModelSpec(architecture=architecture, hidden_size=8, num_heads=1, num_layers=1, cond_size=8)
    model = models.build(spec, vocab_size=3, length=4, image_shape=(1, 2, 2))
    assert sample(model, UniformProcess(3), **{**SETTINGS, "length": 4}).tokens.shape == (8, 4)
    with pytest.raises(SpecError, match="length: got 3, expected 4, the tokens a row that the model was made for"):
        sample(model, UniformProcess(3), **SETTINGS)


def test_an_interrupted_model_is_left_as_it_was():
    model = Constant([0.0, 1.0])
    model.add_module("frozen", nn.Dropout().eval())

    def interrupt(sample_ids, step, x_t):
        assert not any(module.training for module in model.modules())
        if step == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sample(model, UniformProcess(2), observer=interrupt, **SETTINGS)
    assert [module.training for module in model.modules()] == [True, False]
