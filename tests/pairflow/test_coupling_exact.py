"""Both engines against the equations solved exactly, by enumerating every state of a tiny problem.

Nothing here is shared with the engines: the posterior is Bayes' rule on the forward path, and the walk's law is a
product of transition matrices over all K^D states.
"""

import itertools

import numpy as np
import pytest
import torch
from scipy import stats

from pairflow.coupling import couple
from pairflow.coupling.dense import DenseSupport, move_probability, walk
from pairflow.schedule import flip_ceiling, gamma
from pairflow.spec import CouplingSpec

K, D = 3, 3
SUPPORT = np.array([[0, 0, 0], [0, 0, 1], [0, 0, 0], [2, 1, 1], [1, 2, 0]], np.uint8)
STATES = np.array(list(itertools.product(range(K), repeat=D)))
EQUAL = STATES[:, None, :] == SUPPORT[None]  # [states, M, D]


def path_probability(kappa: float) -> np.ndarray:
    """P(x_t = z | x_1 = d_m) for all states and rows: each token is kept with κ, else redrawn from all K."""
    return np.where(EQUAL, kappa + (1 - kappa) / K, (1 - kappa) / K).prod(-1)


def brute_force_agreement(kappa: float) -> np.ndarray:
    """S^i(z) = P(x_1^i = z^i | x_t = z) by Bayes' rule, rows equally likely."""
    joint = path_probability(kappa)
    posterior = joint / joint.sum(1, keepdims=True)
    return np.einsum("zm,zmi->zi", posterior, EQUAL)


@pytest.mark.parametrize("kappa", [0.05, 0.5, 0.95])
def test_dense_marginals_are_bayes_rule_over_all_states(kappa):
    dense = DenseSupport(SUPPORT, K)
    agreement = dense.marginal_agreement(torch.from_numpy(STATES), gamma(kappa, K))
    np.testing.assert_allclose(agreement.numpy(), brute_force_agreement(kappa), rtol=1e-12)


@pytest.mark.parametrize("kappa", [0.1, 0.6, 0.9])
def test_the_backward_velocity_undoes_the_forward_path(kappa):
    """Eq. (2.6) is right iff the marginal path satisfies d/dt p_t(z) = Σ_z' p_t(z')·v̌(z, z') at every state."""
    step = 1e-6
    marginal = path_probability(kappa).mean(1)
    derivative = (path_probability(kappa + step) - path_probability(kappa - step)).mean(1) / (2 * step)
    leaving = flip_ceiling(kappa, 1.0, 1.0, K) * brute_force_agreement(kappa)  # rate of leaving z at i
    flux = np.zeros(len(STATES))
    for z, state in enumerate(STATES):
        for i in range(D):
            flux[z] += marginal[z] * leaving[z, i]
            for token in set(range(K)) - {state[i]}:
                moved = np.ravel_multi_index((*state[:i], token, *state[i + 1 :]), (K,) * D)
                flux[moved] -= marginal[z] * leaving[z, i] / (K - 1)
    np.testing.assert_allclose(flux, derivative, atol=1e-8)


def exact_source_law(start: int, num_steps: int, temperature: float) -> np.ndarray:
    """Law of the source over all K^D states for the walk that starts at row `start` of the support."""
    law = (SUPPORT[start] == STATES).all(1).astype(float)
    for k in range(num_steps):
        t = 1 - k / num_steps
        agreement = np.ones((len(STATES), D)) if k == 0 else brute_force_agreement(t)
        rate = agreement / num_steps  # h·κ̇·S
        ratio = rate / (1 - t + K * t - (K - 1) * rate)  # Eq. (2.8)
        keep = 1 / (1 + (K - 1) * ratio ** (1 / temperature))
        # transition[z, z'] is a product over positions: keep, or one of the K−1 others
        same = STATES[:, None, :] == STATES[None]
        transition = np.where(same, keep[:, None], (1 - keep[:, None]) / (K - 1)).prod(-1)
        law = law @ transition
    return law


@pytest.mark.parametrize("engine", ["cpu", "dense"])
@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
@pytest.mark.parametrize("start", [0, 3])
def test_sources_follow_the_exact_law(engine, temperature, start):
    """Chi-square over all 27 states, 60,000 walks of one row; 12 tests at 1e-6: false alarm below 2e-5."""
    num_walks = 60_000
    source = couple(
        np.repeat(SUPPORT[start : start + 1], num_walks, axis=0),
        SUPPORT,
        vocab_size=K,
        spec=CouplingSpec(num_steps=5, temperature=temperature, seed=11),
        engine=engine,
        num_threads=1,  # the dense engine is 20 times slower where its threads have little to do
    )
    observed = np.bincount(np.ravel_multi_index(tuple(source.T), (K,) * D), minlength=K**D)
    expected = exact_source_law(start, 5, temperature) * num_walks
    assert stats.chisquare(observed, expected).pvalue > 1e-6


def test_tau_one_is_the_exact_walk():
    agreement = torch.rand(100, dtype=torch.float64)
    probability = move_probability(agreement, 0.7, 5, 1.0)
    torch.testing.assert_close(probability, 0.7 * agreement)


def test_a_dense_walk_shows_its_states_and_marginals():
    spec = CouplingSpec(num_steps=4, seed=3)
    ids = np.arange(len(SUPPORT), dtype=np.uint64)
    result = walk(SUPPORT, DenseSupport(SUPPORT, K), spec=spec, sample_ids=ids)
    np.testing.assert_array_equal(result.states[0], SUPPORT)
    np.testing.assert_array_equal(result.states[-1], result.source)
    np.testing.assert_array_equal(result.marginals[0], 1)
    for k in (1, 2, 3):
        rows = np.ravel_multi_index(tuple(result.states[k].T), (K,) * D)
        np.testing.assert_allclose(result.marginals[k], brute_force_agreement(1 - k / 4)[rows], rtol=1e-12)


def test_sources_near_the_uniform_law_as_one_over_the_number_of_steps():
    """Total variation between uniform and the sources' law, averaged over the rows; the law is that of the engines."""
    distances = []
    for num_steps in (10, 20, 40, 80):
        law = np.mean([exact_source_law(start, num_steps, 1.0) for start in range(len(SUPPORT))], axis=0)
        distances.append(0.5 * np.abs(law - 1 / K**D).sum())
    ratios = np.divide(distances[:-1], distances[1:])
    assert distances[0] < 0.02
    assert ((ratios > 1.8) & (ratios < 2.1)).all()
