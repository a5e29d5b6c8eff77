"""The samplers with an exact denoiser in place of the network: loss, posterior, draws and schedule together."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from pairflow.processes import AbsorbingProcess, UniformProcess, build
from pairflow.sampling import SAMPLERS, network_calls, sample
from pairflow.spec import SamplingSpec

from .exact_denoiser import (
    APART,
    ENTROPY,
    LENGTH,
    POINTS,
    SHARES,
    VOCAB_SIZE,
    ExactDenoiser,
    all_states,
    exact_model,
    likelihoods,
)

UNIFORM, ABSORBING = UniformProcess(VOCAB_SIZE), AbsorbingProcess(VOCAB_SIZE)
ANCESTRAL = SamplingSpec(final_step="ancestral")
RULES = [(process, sampler) for process in ("uniform", "absorbing") for sampler in ("ancestral", "euler", "psi")]


def spec_of(sampler, final_step="ancestral"):
    return SamplingSpec(sampler=sampler, final_step=final_step, corrections=1.0 if sampler == "psi" else None)


def draw(points=POINTS, process=UNIFORM, spec=ANCESTRAL, **changes):
    settings: dict[str, Any] = {"num_samples": 64, "num_steps": 4, "length": LENGTH, "device": "cpu", "progress": False}
    return sample(exact_model(process, points), process, spec, **{**settings, **changes})


def chances(process, sampler, t, s, weight):
    """P(x_s^i | x_t) of one step from every state, with the exact denoiser: float64 [S, D, num_states]."""
    states = all_states(process)
    now, ahead = (torch.full((len(states),), time, dtype=torch.float64) for time in (t, s))
    probs = exact_model(process)(states, now).softmax(dim=-1)
    return SAMPLERS[sampler](process, probs, states, now, ahead, weight)


@pytest.mark.parametrize(("name", "sampler"), RULES)
@pytest.mark.parametrize(("t", "s"), [(0.0, 0.3), (0.25, 0.5), (0.4, 0.95), (0.6, 1.0)])
@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_a_step_of_any_size_keeps_every_positions_marginal(name, sampler, t, s, weight):
    """Σ_z q(z at t)·P(x_s^i | z) = q(x_s^i) over all states, without a random draw: the correctors' mixture too."""
    process = build(name, VOCAB_SIZE)
    states = all_states(process)
    joint = torch.from_numpy(SHARES) @ likelihoods(process, states, t).prod(dim=-1)
    step = chances(process, sampler, t, s, weight)
    torch.testing.assert_close(step.sum(dim=-1), torch.ones(len(states), LENGTH, dtype=torch.float64))
    tokens = torch.arange(process.num_states)[:, None].expand(-1, LENGTH)
    expected = torch.einsum("m,mad->da", torch.from_numpy(SHARES), likelihoods(process, tokens, s))
    torch.testing.assert_close(torch.einsum("z,zda->da", joint, step), expected, rtol=1e-9, atol=1e-9)


def distance(process, sampler, num_steps, rate=1.0):
    """Total variation between what T steps reach and the data, by transition matrices over all states."""
    states = all_states(process)
    reached = process.noise(torch.zeros((), dtype=torch.float64))[states].prod(dim=-1)
    for step in range(num_steps):
        one = chances(process, sampler, step / num_steps, (step + 1) / num_steps, min(1.0, rate / num_steps))
        kernel = torch.stack([one[:, i, states[:, i]] for i in range(LENGTH)]).prod(dim=0)
        reached = reached @ kernel
    data = torch.zeros_like(reached)
    for point, share in zip(POINTS, SHARES, strict=True):
        data[(states == torch.from_numpy(point)).all(dim=-1)] = share
    return float((reached - data).abs().sum() / 2)


@pytest.mark.parametrize(("name", "sampler"), RULES)
def test_every_sampler_reaches_the_data_distribution_at_first_order(name, sampler):
    """Twice the steps halve the error, which only factorised steps cause; no random draw."""
    process = build(name, VOCAB_SIZE)
    coarse, fine = distance(process, sampler, 64), distance(process, sampler, 128)
    assert fine < 0.02
    assert 0.4 < fine / coarse < 0.6


@pytest.mark.parametrize(("name", "sampler"), RULES)
@pytest.mark.parametrize(("points", "final_step"), [(POINTS, "ancestral"), (APART, "greedy")])
def test_an_exact_denoiser_samples_the_data_distribution(name, sampler, points, final_step):
    """χ² over the four data points at level 1e-4 each, seed fixed: a correct sampler fails for 1 in 830 seeds.

    Factorised steps are exact only in the limit of many: at 256 their bias is far below the noise of 2,048 samples. A
    greedy end forgets which of two points that differ in one position was drawn, hence points further apart.
    """
    spec = spec_of(sampler, final_step)
    samples = draw(points, build(name, VOCAB_SIZE), spec, num_samples=2048, num_steps=256, batch_size=2048).tokens
    counts = np.array([(samples == point).all(axis=1).sum() for point in points])
    assert counts.sum() >= 0.99 * len(samples)
    assert stats.chisquare(counts, SHARES * counts.sum()).pvalue > 1e-4


@pytest.mark.parametrize("name", ["uniform", "absorbing"])
def test_the_loss_of_an_exact_denoiser_integrates_to_the_entropy_of_the_data(name):
    """∫ Σ_i E[loss_i] dt = H(x_1): the bound is tight, as the reverse process moves one position at a time."""
    process = build(name, VOCAB_SIZE)
    states = all_states(process)
    nodes, weights = np.polynomial.legendre.leggauss(96)
    total = 0.0
    for t, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
        times = torch.full((len(states),), t)
        logits = exact_model(process)(states, times)
        chance = likelihoods(process, states, t).prod(dim=-1)
        for m, share in enumerate(SHARES):
            target = torch.from_numpy(POINTS[m]).expand_as(states)
            loss = process.loss(logits, states, target, times).double().sum(-1)
            total += weight * share * float((chance[m] * loss).sum())
    assert total == pytest.approx(ENTROPY, abs=2e-3)


@pytest.mark.parametrize("process", [UNIFORM, ABSORBING])
def test_a_sample_does_not_depend_on_batch_size_or_on_how_many_there_are(process):
    whole = draw(process=process, num_samples=50, batch_size=50).tokens
    for batch_size in (1, 7, 49):
        np.testing.assert_array_equal(draw(process=process, num_samples=50, batch_size=batch_size).tokens, whole)
    np.testing.assert_array_equal(draw(process=process, num_samples=20).tokens, whole[:20])
    np.testing.assert_array_equal(draw(process=process, num_samples=30, start=20, batch_size=9).tokens, whole[20:])
    assert (draw(process=process, num_samples=50, seed=1).tokens != whole).any()


class Counting(nn.Module):
    """Remembers what a network was asked."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.calls = inner, []

    def forward(self, x_t, t):
        self.calls.append((float(t[0]), x_t.clone()))
        return self.inner(x_t, t)


def test_greedy_is_the_argmax_of_one_more_network_call():
    model = Counting(ExactDenoiser()).train()
    settings: dict[str, Any] = {"length": 3, "device": "cpu", "progress": False}
    greedy = sample(model, UNIFORM, num_samples=32, num_steps=2, **settings)
    assert [time for time, _ in model.calls] == pytest.approx([0.001, 0.5, 0.999])
    assert greedy.network_calls == len(model.calls) == network_calls(2, "greedy") == network_calls(2, "ancestral") + 1
    ancestral = draw(num_samples=32, num_steps=2)
    assert ancestral.network_calls == 2
    np.testing.assert_array_equal(model.calls[2][1], ancestral.tokens)
    logits = ExactDenoiser()(torch.from_numpy(ancestral.tokens).long(), torch.full((32,), 0.999))
    np.testing.assert_array_equal(greedy.tokens, logits.argmax(-1))
    assert model.training


@pytest.mark.parametrize("sampler", ["ancestral", "psi"])
@pytest.mark.parametrize("final_step", ["ancestral", "greedy"])
def test_the_cache_changes_the_number_of_network_calls_and_nothing_else(sampler, final_step, monkeypatch):
    """A row of D = 3 tokens is asked for at most three times without remasking, whatever the number of steps."""
    model = Counting(exact_model(ABSORBING))
    settings: dict[str, Any] = {
        "num_samples": 40,
        "num_steps": 64,
        "length": 3,
        "batch_size": 16,
        "device": "cpu",
        "progress": False,
    }
    cached = sample(model, ABSORBING, spec_of(sampler, final_step), **settings)
    rows = sum(len(x_t) for _, x_t in model.calls)
    assert cached.network_calls == rows / 40
    assert {time for time, _ in model.calls} == {0.0}
    assert all((x_t == ABSORBING.mask).any(dim=1).all() for _, x_t in model.calls)
    if sampler == "ancestral":
        assert 1 < cached.network_calls <= 3
    monkeypatch.setattr(AbsorbingProcess, "time_free", False)
    plain = sample(exact_model(ABSORBING), ABSORBING, spec_of(sampler, final_step), **settings)
    np.testing.assert_array_equal(plain.tokens, cached.tokens)
    assert plain.network_calls == 64 > cached.network_calls


def test_psi_without_weight_is_ancestral_and_with_all_of_it_forgets_the_state():
    plain, renoised = chances(UNIFORM, "psi", 0.5, 0.75, 0.0), chances(UNIFORM, "psi", 0.5, 0.75, 1.0)
    torch.testing.assert_close(plain, chances(UNIFORM, "ancestral", 0.5, 0.75, 0.0))
    states = all_states(UNIFORM)
    times = torch.full((len(states),), 0.5, dtype=torch.float64)
    predicted = UNIFORM.denoiser(exact_model(UNIFORM)(states, times).softmax(-1), states, times)
    torch.testing.assert_close(renoised, 0.75 * predicted + 0.25 / VOCAB_SIZE)


def test_a_narrow_nucleus_leaves_the_likeliest_token_only():
    """From all masks in one step every position then takes the argmax of its own marginal."""
    narrow = SamplingSpec(top_p=0.01, final_step="ancestral")
    samples = draw(process=ABSORBING, spec=narrow, num_steps=1).tokens
    marginal = np.stack([(SHARES[:, None] * (token == POINTS)).sum(axis=0) for token in range(VOCAB_SIZE)])
    np.testing.assert_array_equal(samples, np.tile(marginal.argmax(axis=0), (64, 1)))
    assert len(np.unique(draw(process=ABSORBING, num_steps=1).tokens, axis=0)) > 4
