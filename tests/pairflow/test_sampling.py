"""The sampler with an exact denoiser in place of the network: loss, posterior, draws and schedule together."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from pairflow.errors import SpecError
from pairflow.processes import UniformProcess
from pairflow.sampling import draw_categorical, network_calls, sample

VOCAB_SIZE, LENGTH = 3, 3
POINTS = np.array([[0, 0, 0], [0, 1, 2], [2, 1, 2], [1, 0, 0]])
APART = np.array([[0, 0, 0], [0, 1, 2], [2, 1, 0], [1, 0, 2]])  # any two differ in at least two positions
SHARES = np.array([0.4, 0.3, 0.2, 0.1])


class ExactDenoiser(nn.Module):
    """The prediction that minimises the loss and makes the reverse step exact, from all data points.

    It is p(x_1^i = a | z without z^i) = Σ_m w_m^i 1[d_m^i = a] with w_m^i ∝ share_m·γ_t^{−h(d_m, z) outside i}:
    the closed form of method.md §2 with the position itself left out, as both the loss and the posterior multiply
    the evidence of z^i in by themselves.
    """

    def __init__(self, points: np.ndarray = POINTS) -> None:
        super().__init__()
        self.points = torch.from_numpy(points)

    def forward(self, x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        odds = torch.log1p(VOCAB_SIZE * t.double() / (1 - t.double()))
        differs = (x_t[:, None] != self.points).double()
        elsewhere = differs.sum(dim=-1, keepdim=True) - differs
        prior = torch.from_numpy(SHARES).log()[:, None]
        weights = (prior - odds[:, None, None] * elsewhere).softmax(dim=1)
        one_hot = nn.functional.one_hot(self.points, VOCAB_SIZE).double()
        return torch.einsum("bmd,mdk->bdk", weights, one_hot).log().clamp_min(-1e4)


def draw(points=POINTS, **changes):
    settings = {
        "num_samples": 64,
        "num_steps": 4,
        "final_step": "ancestral",
        "seed": 0,
        "vocab_size": VOCAB_SIZE,
        "length": LENGTH,
        "device": "cpu",
        "progress": False,
    }
    return sample(ExactDenoiser(points), **{**settings, **changes})


@pytest.mark.parametrize(("points", "final_step"), [(POINTS, "ancestral"), (APART, "greedy")])
def test_an_exact_denoiser_samples_the_data_distribution(points, final_step):
    """χ² over the four data points at level 1e-4, seed fixed; under 0.5 % may fall elsewhere at 256 steps.

    Factorised steps are exact only in the limit of many: at 256 their bias is far below the noise of 4,096 samples. A
    greedy end forgets which of two points that differ in one position was drawn, hence points further apart.
    """
    samples = draw(points, num_samples=4096, num_steps=256, final_step=final_step, batch_size=4096)
    counts = np.array([(samples == point).all(axis=1).sum() for point in points])
    assert counts.sum() >= 0.995 * len(samples)
    assert stats.chisquare(counts, SHARES * counts.sum()).pvalue > 1e-4


def test_the_loss_of_an_exact_denoiser_integrates_to_the_entropy_of_the_data():
    """∫ Σ_i E[loss_i] dt = H(x_1): the bound is tight, as the reverse process moves one position at a time."""
    states = torch.tensor(list(itertools.product(range(VOCAB_SIZE), repeat=LENGTH)))
    nodes, weights = np.polynomial.legendre.leggauss(96)
    total = 0.0
    for t, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
        times = torch.full((len(states),), t)
        logits = ExactDenoiser()(states, times)
        for point, share in zip(POINTS, SHARES, strict=True):
            target = torch.from_numpy(point).expand_as(states)
            likelihood = torch.where(states == target, t + (1 - t) / VOCAB_SIZE, (1 - t) / VOCAB_SIZE).prod(-1)
            loss = UniformProcess(VOCAB_SIZE).loss(logits, states, target, times).double().sum(-1)
            total += weight * share * float((likelihood * loss).sum())
    assert total == pytest.approx(-(SHARES * np.log(SHARES)).sum(), abs=2e-3)


def test_a_sample_does_not_depend_on_batch_size_or_on_how_many_there_are():
    whole = draw(num_samples=50, batch_size=50)
    for batch_size in (1, 7, 49):
        np.testing.assert_array_equal(draw(num_samples=50, batch_size=batch_size), whole)
    np.testing.assert_array_equal(draw(num_samples=20), whole[:20])
    assert (draw(num_samples=50, seed=1) != whole).any()


def test_greedy_is_the_argmax_of_one_more_network_call():
    class Counting(ExactDenoiser):
        calls: list[tuple[float, torch.Tensor]]

        def forward(self, x_t, t):
            self.calls.append((float(t[0]), x_t.clone()))
            return super().forward(x_t, t)

    model = Counting().train()
    model.calls = []
    settings = {"seed": 0, "vocab_size": 3, "length": 3, "device": "cpu", "progress": False}
    greedy = sample(model, num_samples=32, num_steps=2, final_step="greedy", **settings)
    assert [time for time, _ in model.calls] == pytest.approx([0.001, 0.5, 0.999])
    assert len(model.calls) == network_calls(2, "greedy") == network_calls(2, "ancestral") + 1
    ancestral = draw(num_samples=32, num_steps=2)
    np.testing.assert_array_equal(model.calls[2][1], ancestral)
    logits = ExactDenoiser()(torch.from_numpy(ancestral).long(), torch.full((32,), 0.999))
    np.testing.assert_array_equal(greedy, logits.argmax(-1))
    assert model.training


def test_draws_follow_the_inverse_cdf_and_never_pick_probability_zero():
    probs = torch.tensor([[[0.0, 0.25, 0.0, 0.75, 0.0]]], dtype=torch.float64)
    levels = {0.0: 1, 0.2499: 1, 0.25: 3, 0.9: 3, math.nextafter(1, 0): 3}
    for level, token in levels.items():
        assert draw_categorical(probs, torch.tensor([[level]], dtype=torch.float64)).item() == token


def test_tokens_come_in_the_smallest_dtype():
    class Flat(nn.Module):
        def forward(self, x_t, t):
            return torch.zeros(*x_t.shape, 300)

    settings = {"num_samples": 2, "num_steps": 1, "length": 2, "device": "cpu", "progress": False}
    assert sample(Flat(), vocab_size=300, **settings).dtype == np.uint16
    assert draw(num_samples=2).dtype == np.uint8


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_steps": 0}, "num_steps: got 0, expected at least 1"),
        ({"num_samples": 0}, "num_samples: got 0"),
        ({"batch_size": 0}, "batch_size: got 0"),
        ({"final_step": "best"}, "final_step: got 'best', expected 'ancestral' or 'greedy'"),
        ({"device": "cuda:99"}, "device: got 'cuda:99'"),
        ({"device": "gpu!"}, "device: got 'gpu!'"),
        ({"device": "meta"}, "only 'cpu' and 'cuda'"),
    ],
)
def test_bad_settings_are_named(changes, message):
    with pytest.raises(SpecError, match=message):
        draw(**changes)
