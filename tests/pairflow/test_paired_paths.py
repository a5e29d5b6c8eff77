"""What training and sampling do on pairs (docs/method.md §3), with every pair of a random coupling enumerated.

One position is enough: each row of a batch is a state z, and a coupling is a table of P(x_0, x_1).
"""

import numpy as np
import pytest
import torch

from pairflow.processes import UniformProcess

K = 4
PROCESS = UniformProcess(K)
STATES = torch.arange(K)[:, None]
COUPLING = np.random.default_rng(0).dirichlet(np.ones(K * K)).reshape(K, K)
INDEPENDENT = np.full((K, 1), 1 / K) * COUPLING.sum(0)


def joint(coupling: np.ndarray, t: float) -> np.ndarray:
    """P(x_t = z, x_1 = b), [z, b], by the definition of the path, Eq. (1.1)."""
    law = np.zeros((K, K))
    for x_0 in range(K):
        for x_1 in range(K):
            law[x_1, x_1] += t * coupling[x_0, x_1]
            law[x_0, x_1] += (1 - t) * coupling[x_0, x_1]
    return law


def best_prediction(coupling: np.ndarray, t: float) -> torch.Tensor:
    """p(b) ∝ P(x_1 = b | z) / q_t(z | b), which the loss is claimed to be smallest at: [z, 1, b]."""
    without_evidence = joint(coupling, t) / (t * np.eye(K) + (1 - t) / K)
    return torch.from_numpy(without_evidence / without_evidence.sum(1, keepdims=True))[:, None]


def times(t: float) -> torch.Tensor:
    return torch.full((K,), t, dtype=torch.float64)


def step(name: str, coupling: np.ndarray, t: float, s: float) -> np.ndarray:
    """Law of x_s after one step from the path's own law at t, given the best prediction."""
    chances = getattr(PROCESS, name)(best_prediction(coupling, t), STATES, times(t), times(s))
    return joint(coupling, t).sum(1) @ chances[:, 0].numpy()


@pytest.mark.parametrize("coupling", [COUPLING, INDEPENDENT], ids=["paired", "independent"])
@pytest.mark.parametrize("t", [0.1, 0.5, 0.9])
def test_the_best_prediction_stands_for_the_pairs_own_denoiser(coupling, t):
    law = joint(coupling, t)
    denoiser = PROCESS.denoiser(best_prediction(coupling, t), STATES, times(t))
    np.testing.assert_allclose(denoiser[:, 0].numpy(), law / law.sum(1, keepdims=True), rtol=1e-12)


@pytest.mark.parametrize("coupling", [COUPLING, INDEPENDENT], ids=["paired", "independent"])
@pytest.mark.parametrize("t", [0.2, 0.6])
def test_the_loss_on_pairs_is_smallest_at_that_prediction(coupling, t):
    """Its mean over all (z, x_1), at the prediction and at 50 others nearby."""
    law, best = torch.from_numpy(joint(coupling, t)), best_prediction(coupling, t)
    generator = torch.Generator().manual_seed(0)

    def mean_loss(logits: torch.Tensor) -> float:
        losses = [PROCESS.loss(logits, STATES, torch.full_like(STATES, b), times(t))[:, 0] for b in range(K)]
        return float((law * torch.stack(losses, dim=1)).sum())

    smallest = mean_loss(best.log())
    others = [mean_loss(best.log() + 0.3 * torch.randn(best.shape, generator=generator)) for _ in range(50)]
    assert smallest < min(others)


@pytest.mark.parametrize(("t", "s"), [(0.0, 0.3), (0.3, 0.4), (0.5, 1.0)])
def test_eulers_steps_keep_the_marginals_of_any_coupling(t, s):
    for coupling in (COUPLING, INDEPENDENT):
        np.testing.assert_allclose(step("euler", coupling, t, s), joint(coupling, s).sum(1), atol=1e-12)


@pytest.mark.parametrize(("t", "s"), [(0.1, 0.3), (0.3, 0.4)])
def test_ancestral_steps_keep_those_of_independent_sources_only(t, s):
    np.testing.assert_allclose(step("posterior", INDEPENDENT, t, s), joint(INDEPENDENT, s).sum(1), atol=1e-12)
    assert np.abs(step("posterior", COUPLING, t, s) - joint(COUPLING, s).sum(1)).max() > 0.01
