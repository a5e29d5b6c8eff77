"""The processes against float64 code written from their definition: transition matrices and Bayes' rule."""

import numpy as np
import pytest
import torch
from scipy import stats

from pairflow import processes
from pairflow.batches import stratified_times
from pairflow.errors import SpecError
from pairflow.processes import AbsorbingProcess, UniformProcess

TIMES = (1e-3, 0.05, 0.3, 0.7, 0.95, 0.999)


def bayes_posterior(start: np.ndarray, z: int, t: float, s: float, name: str = "uniform") -> np.ndarray:
    """P(x_s | x_t = z) when x_1 ~ `start` [num_states], by transition matrices of the linear schedule, float64."""
    K = len(start)
    noise = np.full((K, K), 1 / K) if name == "uniform" else np.tile(np.eye(K)[-1], (K, 1))
    clean_to_s = s * np.eye(K) + (1 - s) * noise
    s_to_t = (t / s) * np.eye(K) + (1 - t / s) * noise
    joint = (start @ clean_to_s) * s_to_t[:, z]
    return joint / joint.sum()


def random_probs(rng: np.random.Generator, shape: tuple[int, ...], sharpness: float) -> np.ndarray:
    weights = np.exp(sharpness * rng.standard_normal(shape))
    return weights / weights.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize("vocab_size", [2, 3, 7])
@pytest.mark.parametrize("time", TIMES)
def test_loss_is_the_limit_of_the_discretised_kl(vocab_size, time):
    """KL(q(x_s | x_t, x_1) ‖ pθ(x_s | x_t)) / (s − t) as s → t, for every pair of z and x_1."""
    rng = np.random.default_rng(vocab_size)
    step = 1e-6 * min(time, 1 - time)
    z, x_1 = (grid.ravel() for grid in np.meshgrid(range(vocab_size), range(vocab_size)))
    for sharpness in (0.1, 1.0, 4.0):
        probs = random_probs(rng, (len(z), vocab_size), sharpness)
        expected = np.array([discretised_kl(probs[i], z[i], x_1[i], time, time + step) / step for i in range(len(z))])
        loss = UniformProcess(vocab_size).loss(
            torch.from_numpy(np.log(probs))[None],
            torch.from_numpy(z)[None],
            torch.from_numpy(x_1)[None],
            torch.tensor([time]),
        )
        np.testing.assert_allclose(loss[0].numpy(), expected, rtol=2e-3, atol=2e-5)


def discretised_kl(probs: np.ndarray, z: int, x_1: int, t: float, s: float) -> float:
    """As Σ q (r − 1 − log r) with r = p/q: equal to the KL, without its cancellation."""
    q = bayes_posterior(np.eye(len(probs))[x_1], z, t, s)
    p = bayes_posterior(probs, z, t, s)
    excess = (p - q) / q
    return float((q * (excess - np.log1p(excess))).sum())


@pytest.mark.parametrize("time", TIMES)
def test_the_absorbing_loss_is_the_limit_of_the_discretised_kl(time):
    """As above, for every x_1 and every state that it can be in: its own token, or the mask."""
    rng, K = np.random.default_rng(5), 4
    process = AbsorbingProcess(K)
    step = 1e-6 * min(time, 1 - time)
    for x_1, z in [(token, state) for token in range(K) for state in (token, process.mask)]:
        probs = random_probs(rng, (K,), 2.0)
        own = np.eye(K + 1)[x_1]
        predicted = np.append(probs, 0.0) if z == process.mask else own  # SUBS: never the mask, and copies
        q, p = (bayes_posterior(start, z, time, time + step, "absorbing") for start in (own, predicted))
        expected = stats.entropy(q, p) / step
        arguments = (torch.from_numpy(np.log(probs))[None, None], torch.tensor([[z]]), torch.tensor([[x_1]]))
        loss = process.loss(*arguments, torch.tensor([time])).item()
        assert loss == pytest.approx(expected, rel=1e-4, abs=1e-9)
        assert (loss > 0) == (z == process.mask)


@pytest.mark.parametrize("time", TIMES)
def test_loss_is_zero_for_a_one_hot_prediction_and_only_then(time):
    process = UniformProcess(5)
    x_t, x_1 = torch.cartesian_prod(torch.arange(5), torch.arange(5)).T[:, None]
    t = torch.tensor([time])
    certain = torch.where(torch.nn.functional.one_hot(x_1, 5) == 1, 0.0, -1e4)
    assert torch.equal(process.loss(certain, x_t, x_1, t), torch.zeros(1, 25))
    nearly = torch.where(torch.nn.functional.one_hot(x_1, 5) == 1, 4.0, 0.0)
    wrong = nearly.roll(1, dims=-1)
    assert (process.loss(nearly, x_t, x_1, t) > 0).all()
    assert (process.loss(wrong, x_t, x_1, t) > process.loss(nearly, x_t, x_1, t)).all()


def test_loss_stays_finite_with_bfloat16_logits_and_a_large_vocabulary():
    logits = torch.full((2, 3, 50_000), -30.0, dtype=torch.bfloat16)
    tokens = torch.tensor([[0, 1, 49_999], [5, 5, 5]])
    loss = UniformProcess(50_000).loss(logits, tokens, tokens.flip(1), torch.tensor([1e-3, 1 - 1e-3]))
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss).all()


@pytest.mark.parametrize(("t", "s"), [(0.0, 0.1), (0.0, 1.0), (0.3, 0.4), (0.9, 1.0)])
def test_posterior_is_bayes_rule_and_sums_to_one(t, s):
    rng = np.random.default_rng(1)
    probs = random_probs(rng, (2, 3, 4), 2.0)
    x_t = rng.integers(4, size=(2, 3))
    posterior = UniformProcess(4).posterior(
        torch.from_numpy(probs),
        torch.from_numpy(x_t),
        torch.full((2,), t, dtype=torch.float64),
        torch.full((2,), s, dtype=torch.float64),
    )
    torch.testing.assert_close(posterior.sum(-1), torch.ones(2, 3, dtype=torch.float64))
    for row, position in np.ndindex(2, 3):
        expected = bayes_posterior(probs[row, position], int(x_t[row, position]), t, s)
        np.testing.assert_allclose(posterior[row, position], expected, rtol=1e-12)


@pytest.mark.parametrize(("t", "s"), [(0.0, 0.1), (0.0, 1.0), (0.3, 0.4), (0.9, 1.0)])
def test_the_absorbing_posterior_is_bayes_rule_copies_tokens_and_sums_to_one(t, s):
    rng, K = np.random.default_rng(1), 4
    process = AbsorbingProcess(K)
    probs = random_probs(rng, (1, K + 1, K), 2.0)
    x_t = torch.arange(K + 1)[None]
    times = (torch.full((1,), time, dtype=torch.float64) for time in (t, s))
    posterior = process.posterior(torch.from_numpy(probs), x_t, *times)[0].numpy()
    np.testing.assert_array_equal(posterior[:K], np.eye(K + 1)[:K])
    expected = bayes_posterior(np.append(probs[0, K], 0.0), K, t, s, "absorbing")
    np.testing.assert_allclose(posterior[K], expected, rtol=1e-12)
    assert posterior[K].sum() == pytest.approx(1, abs=1e-12)


def test_corrupt_keeps_the_target_with_probability_kappa():
    """Three binomial z-tests at |z| < 4.5: a correct path fails for 1 in 49,000 seeds."""
    num_rows = 60_000
    generator = torch.Generator().manual_seed(0)
    source, target = torch.zeros(num_rows, 2, dtype=torch.int64), torch.ones(num_rows, 2, dtype=torch.int64)
    for time in (0.1, 0.5, 0.9):
        x_t = UniformProcess(4).corrupt(source, target, torch.full((num_rows,), time), generator)
        deviation = np.sqrt(time * (1 - time) / x_t.numel())
        assert abs(x_t.double().mean().item() - time) < 4.5 * deviation
    ends = UniformProcess(4).corrupt(source[:2], target[:2], torch.tensor([0.0, 1.0]), generator)
    assert ends.tolist() == [[0, 0], [1, 1]]


@pytest.mark.parametrize("batch_size", [1, 2, 64, 1024])
def test_times_have_one_draw_in_each_stratum(batch_size):
    epsilon = 1e-3
    t = stratified_times(batch_size, epsilon, torch.Generator().manual_seed(3))
    assert t.dtype == torch.float32
    assert t.min() >= epsilon
    assert t.max() <= 1 - epsilon
    strata = ((t.double() - epsilon) / (1 - 2 * epsilon) * batch_size - 1e-4).clamp_min(0).long()
    assert strata.tolist() == list(range(batch_size))


def test_registry_builds_by_name_and_names_what_it_has():
    assert isinstance(processes.build("uniform", 4), UniformProcess)
    assert isinstance(processes.build("absorbing", 4), AbsorbingProcess)
    with pytest.raises(SpecError, match=r"got 'gaussian', expected one of absorbing, marginal, uniform"):
        processes.build("gaussian", 4)
    with pytest.raises(SpecError, match=r"vocab_size: got 1"):
        UniformProcess(1)
