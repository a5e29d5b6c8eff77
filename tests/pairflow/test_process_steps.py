"""Reverse steps of the processes: what a prediction means, Euler's step, and chains of steps by Monte Carlo."""

import itertools

import numpy as np
import pytest
import torch

from pairflow import processes
from pairflow.coupling.dense import DenseSupport
from pairflow.processes import AbsorbingProcess, UniformProcess
from pairflow.sampling import draw_categorical
from pairflow.schedule import gamma

from .exact_denoiser import POINTS, SHARES, VOCAB_SIZE, all_states, exact_model


@pytest.mark.parametrize("time", [0.0, 0.2, 0.9])
def test_the_own_tokens_evidence_makes_p_1t_of_the_trained_prediction(time):
    """Leave-own-position-out posteriors and the dense engine's p_{1|t}, which are written independently, agree."""
    process, states = UniformProcess(VOCAB_SIZE), all_states(UniformProcess(VOCAB_SIZE))
    support = DenseSupport(np.repeat(POINTS, (SHARES * 10).round().astype(int), axis=0), VOCAB_SIZE)
    times = torch.full((len(states),), time, dtype=torch.float64)
    probs = exact_model(process)(states, times).softmax(dim=-1)
    expected = support.denoiser(states, gamma(time, VOCAB_SIZE))
    torch.testing.assert_close(process.denoiser(probs, states, times), expected)
    if time > 0:
        assert (probs - expected).abs().max() > 0.1


def test_eulers_step_is_the_forward_velocity_times_the_step_size():
    """δ + h·κ̇/(1−κ)·(p_{1|t} − δ), by Eq. (2.4), is the exact form of Eq. (4.2) on the linear schedule."""
    rng, t, s = np.random.default_rng(2), 0.3, 0.42
    process = UniformProcess(4)
    probs, x_t = torch.from_numpy(rng.dirichlet(np.ones(4), (2, 3))), torch.from_numpy(rng.integers(4, size=(2, 3)))
    here, ahead = (torch.full((2,), time, dtype=torch.float64) for time in (t, s))
    own = torch.nn.functional.one_hot(x_t, 4).double()
    velocity = (process.denoiser(probs, x_t, here) - own) / (1 - t)
    torch.testing.assert_close(process.euler(probs, x_t, here, ahead), own + (s - t) * velocity)


@pytest.mark.parametrize("step", ["posterior", "euler", "corrected"])
@pytest.mark.parametrize("name", ["uniform", "absorbing"])
def test_chained_steps_with_the_true_token_reproduce_the_forward_marginals(name, step):
    """P(x_s = x_1) = κ_s + (1 − κ_s)·noise(x_1) at every step, for a single token, of which p_{1|t} is certain.

    6 · 7 two-sided z-tests at |z| < 4.5: correct chains fail for 1 in 3,500 seeds.
    """
    num_rows, vocab_size = 20_000, 3
    process = processes.build(name, vocab_size)
    generator = torch.Generator().manual_seed(1)
    x_1 = torch.ones(num_rows, 1, dtype=torch.int64)
    probs = torch.nn.functional.one_hot(x_1, vocab_size).double()
    x_t = process.draw_source((num_rows, 1), generator)
    weight = {"weight": 0.3} if step == "corrected" else {}
    for t, s in itertools.pairwise(np.linspace(0, 1, 9)):
        times = [torch.full((num_rows,), time, dtype=torch.float64) for time in (t, s)]
        draws = torch.rand(num_rows, 1, generator=generator, dtype=torch.float64)
        x_t = draw_categorical(getattr(process, step)(probs, x_t, *times, **weight), draws)
        expected = s + (1 - s) * float(process.noise(probs)[1])
        deviation = max(np.sqrt(expected * (1 - expected) / num_rows), 1e-12)
        assert abs((x_t == x_1).double().mean().item() - expected) < 4.5 * deviation


def test_sources_are_noise_and_keyed_ones_depend_on_the_sample_alone():
    absorbing, uniform = AbsorbingProcess(5), UniformProcess(5)
    generator = torch.Generator().manual_seed(0)
    assert absorbing.draw_source((2, 3), generator).tolist() == [[5] * 3] * 2
    assert absorbing.keyed_source(3, np.arange(2), 3).tolist() == [[5] * 3] * 2
    assert (absorbing.num_states, uniform.num_states) == (6, 5)
    whole = uniform.keyed_source(3, np.arange(100), 7)
    np.testing.assert_array_equal(uniform.keyed_source(3, np.array([40, 8]), 7), whole[[40, 8]])
    assert set(np.unique(whole)) == set(range(5))
