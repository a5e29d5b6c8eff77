"""From Gaussian to uniform noise: the operator against its integral and against draws, and the states' short cut."""

import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from pairflow.distillation.consistency import gaussian_states
from pairflow.distillation.operator import GaussianOperator, win_probability
from pairflow.errors import SpecError


@pytest.mark.parametrize("vocab_size", [2, 43, 256, 50_000])
def test_the_operator_is_the_integral(vocab_size):
    """Against adaptive quadrature of the same integral, at ratios that are not the table's."""
    ratios = np.array([0.003, 0.1, 0.77, 2.007, 4.111, 7.3])

    def integrand(u, ratio):
        return stats.norm.pdf(u - ratio) * math.exp((vocab_size - 1) * stats.norm.logcdf(u))

    expected = [
        integrate.quad(integrand, r - 10, r + 10, args=(r,), epsabs=1e-13, limit=300, points=[r - 1, r + 1])[0]
        for r in ratios
    ]
    np.testing.assert_allclose(win_probability(ratios, vocab_size)[0], expected, rtol=1e-10)
    kappas = GaussianOperator(vocab_size).kappa(ratios / np.hypot(1, ratios))
    np.testing.assert_allclose(kappas, (vocab_size * np.array(expected) - 1) / (vocab_size - 1), atol=2e-9)


@pytest.mark.parametrize("vocab_size", [2, 43, 50_000])
@pytest.mark.parametrize("ratio", [0.5, 2.0, 4.0])
def test_the_operator_agrees_with_a_monte_carlo_estimate(vocab_size, ratio):
    """10^6 draws of the largest noise by its distribution function; 9 z-tests at |z| < 4.5, 1 in 16,000 seeds fails."""
    rng, num_draws = np.random.default_rng(vocab_size), 10**6
    largest = stats.norm.ppf(rng.random(num_draws) ** (1 / (vocab_size - 1)))
    wins = np.mean(largest < ratio + rng.standard_normal(num_draws))
    kappa = float(GaussianOperator(vocab_size).kappa(ratio / math.hypot(1, ratio)))
    expected = kappa + (1 - kappa) / vocab_size
    assert abs(wins - expected) < 4.5 * math.sqrt(expected * (1 - expected) / num_draws)


@pytest.mark.parametrize("vocab_size", [2, 43, 50_000])
def test_the_operator_is_increasing_reaches_both_ends_and_inverts(vocab_size):
    operator = GaussianOperator(vocab_size)
    alphas = np.linspace(0, 1, 5001)
    kappas = operator.kappa(alphas)
    assert (kappas[0], kappas[-1]) == (0.0, 1.0)
    assert np.diff(kappas).min() > -1e-15
    np.testing.assert_allclose(operator.alpha(kappas[:4900]), alphas[:4900], atol=1e-11)
    np.testing.assert_allclose(operator.kappa(operator.alpha(np.linspace(0, 1, 501))), np.linspace(0, 1, 501))
    assert operator.alpha([0.0, 1.0]).tolist() == [0.0, 1.0]
    tiny = operator.kappa(1e-6)
    assert 0 < tiny < 1e-4
    assert 1 - 1e-12 < operator.kappa(1 - 1e-6) <= 1
    assert GaussianOperator(2).kappa(math.sqrt(0.5)) == pytest.approx(2 * stats.norm.cdf(math.sqrt(0.5)) - 1)
    for wrong in (-0.1, 1.1, math.nan):
        with pytest.raises(SpecError, match=r"alpha: got .* expected values from 0 to 1"):
            operator.kappa(wrong)
    with pytest.raises(SpecError, match="kappa: got"):
        operator.alpha(2.0)


def test_gaussian_states_are_distributed_as_the_literal_argmax():
    """Both states of 20,000 trajectories jointly, χ² of two samples at level 1e-4 over the K² cells, seed fixed."""
    num_rows, K, ratios = 20_000, 4, (1.0, 2.5)
    generator = torch.Generator().manual_seed(0)
    target = torch.full((num_rows, 1), 2)
    levels = [torch.full((num_rows,), ratio, dtype=torch.float64) for ratio in ratios]
    drawn = gaussian_states(target, levels, K, generator)
    noise = torch.randn(num_rows, 1, K, dtype=torch.float64, generator=generator)
    one_hot = torch.nn.functional.one_hot(target, K)
    literal = [(ratio * one_hot + noise).argmax(dim=-1) for ratio in ratios]
    counts = np.array([np.bincount((a * K + b).flatten(), minlength=K * K) for a, b in (drawn, literal)])
    counts = counts[:, counts.sum(axis=0) > 0]
    assert counts.shape[1] == 2 * (K - 1) + 1  # kept in both, replaced in both by the same token, or repaired
    assert stats.chi2_contingency(counts).pvalue > 1e-4
