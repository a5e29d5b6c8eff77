"""Noise from the data's marginals (docs/method.md §7): the process, and what it is made of.

The process is held to float64 code written from its definition, transition matrices and Bayes' rule; its sources to χ²
tests, each of which gives a false alarm once in 10,000 seeds; the seeds are fixed.
"""

import itertools

import numpy as np
import pytest
import torch
from scipy import stats

from pairflow import processes
from pairflow.errors import SpecError
from pairflow.marginals import UNIFORM_SHARE, MarginalCounts, marginals
from pairflow.processes import MarginalProcess, UniformProcess
from pairflow.sampling import draw_categorical

ALARM = 1e-4
TIMES = (1e-3, 0.05, 0.3, 0.7, 0.95, 0.999)
PI = np.array([[0.7, 0.2, 0.1], [0.05, 0.05, 0.9], [1 / 3, 1 / 3, 1 / 3]])
D, K = PI.shape


def process(predicts: processes.Prediction = "others", marginal: np.ndarray = PI) -> MarginalProcess:
    return MarginalProcess(marginal.shape[1], predicts, torch.from_numpy(marginal))


def bayes_posterior(start: np.ndarray, z: int, t: float, s: float, pi: np.ndarray) -> np.ndarray:
    """P(x_s | x_t = z) when x_1 ~ `start` [K], by transition matrices of the linear schedule."""
    noise = np.tile(pi, (len(pi), 1))
    clean_to_s = s * np.eye(len(pi)) + (1 - s) * noise
    s_to_t = (t / s) * np.eye(len(pi)) + (1 - t / s) * noise
    joint = (start @ clean_to_s) * s_to_t[:, z]
    return joint / joint.sum()


def every_pair() -> tuple[np.ndarray, np.ndarray]:
    """z and x_1 [K², D], the same at each position."""
    z, x_1 = np.array(list(itertools.product(range(K), repeat=2))).T
    return np.tile(z[:, None], D), np.tile(x_1[:, None], D)


class TestProcess:
    @pytest.mark.parametrize("predicts", ["others", "all"])
    @pytest.mark.parametrize("time", TIMES)
    def test_loss_is_the_limit_of_the_discretised_kl(self, time: float, predicts: processes.Prediction) -> None:
        rng = np.random.default_rng(3)
        z, x_1 = every_pair()
        step, own = 1e-6 * min(time, 1 - time), process(predicts)
        times = torch.full((len(z),), time, dtype=torch.float64)
        for sharpness in (0.1, 1.0, 4.0):
            probs = np.exp(sharpness * rng.standard_normal((*z.shape, K)))
            probs /= probs.sum(-1, keepdims=True)
            loss = own.loss(
                torch.from_numpy(np.log(probs)), torch.from_numpy(z), torch.from_numpy(x_1), times.float()
            ).numpy()
            implied = own.others(torch.from_numpy(probs), torch.from_numpy(z), times).numpy()
            for row, i in np.ndindex(*z.shape):
                q, p = (
                    bayes_posterior(start, int(z[row, i]), time, time + step, PI[i])
                    for start in (np.eye(K)[x_1[row, i]], implied[row, i])
                )
                excess = (p - q) / q
                expected = float((q * (excess - np.log1p(excess))).sum()) / step
                assert loss[row, i] == pytest.approx(expected, rel=4e-3, abs=4e-5)

    @pytest.mark.parametrize("time", TIMES)
    def test_loss_is_zero_for_a_one_hot_prediction_and_only_then(self, time: float) -> None:
        z, x_1 = map(torch.from_numpy, every_pair())
        hit = torch.nn.functional.one_hot(x_1, K) == 1
        times = torch.full((len(z),), time)
        assert torch.equal(process().loss(torch.where(hit, 0.0, -1e4), z, x_1, times), torch.zeros(z.shape))
        assert (process().loss(torch.where(hit, 4.0, 0.0), z, x_1, times) > 0).all()

    @pytest.mark.parametrize(("t", "s"), [(0.0, 0.1), (0.0, 1.0), (0.3, 0.4), (0.9, 1.0)])
    def test_posterior_is_bayes_rule(self, t: float, s: float) -> None:
        rng = np.random.default_rng(1)
        probs, x_t = rng.dirichlet(np.ones(K), (4, D)), rng.integers(K, size=(4, D))
        times = [torch.full((4,), time, dtype=torch.float64) for time in (t, s)]
        posterior = process().posterior(torch.from_numpy(probs), torch.from_numpy(x_t), *times)
        for row, i in np.ndindex(4, D):
            expected = bayes_posterior(probs[row, i], int(x_t[row, i]), t, s, PI[i])
            np.testing.assert_allclose(posterior[row, i], expected, rtol=1e-12)

    @pytest.mark.parametrize("time", [0.0, 0.2, 0.9])
    def test_the_denoiser_brings_the_own_tokens_evidence_in_and_others_takes_it_out(self, time: float) -> None:
        rng = np.random.default_rng(2)
        probs, x_t = rng.dirichlet(np.ones(K), (5, D)), rng.integers(K, size=(5, D))
        times = torch.full((5,), time, dtype=torch.float64)
        told = process().denoiser(torch.from_numpy(probs), torch.from_numpy(x_t), times)
        for row, i in np.ndindex(5, D):
            likelihood = (time * np.eye(K) + (1 - time) * PI[i])[:, x_t[row, i]]  # q_t(x_t | x_1), by x_1
            expected = probs[row, i] * likelihood
            np.testing.assert_allclose(told[row, i], expected / expected.sum(), rtol=1e-12)
        back = process("all").others(told, torch.from_numpy(x_t), times)
        np.testing.assert_allclose(back, probs, rtol=1e-9)

    def test_with_equal_shares_it_is_the_uniform_process(self) -> None:
        generator = torch.Generator().manual_seed(0)
        t = torch.rand(300, generator=generator, dtype=torch.float64) * 0.98 + 0.01
        s = t + (1 - t) * torch.rand(300, generator=generator, dtype=torch.float64)
        x_t, x_1 = (torch.randint(5, (300, 4), generator=generator) for _ in range(2))
        logits = torch.randn(300, 4, 5, generator=generator, dtype=torch.float64)
        probs = logits.softmax(-1)
        both: tuple[processes.Prediction, ...] = ("others", "all")
        for predicts in both:
            flat, uniform = process(predicts, np.full((4, 5), 0.2)), UniformProcess(5, predicts)
            for name, given in (
                *((name, (logits, x_t, x_1, t)) for name in ("loss", "cross_entropy")),
                *((name, (probs, x_t, t)) for name in ("denoiser", "others")),
                *((name, (probs, x_t, t, s)) for name in ("posterior", "euler", "renoised")),
            ):
                got, expected = (getattr(each, name)(*given) for each in (flat, uniform))
                torch.testing.assert_close(got, expected, rtol=2e-4, atol=2e-5)

    @pytest.mark.parametrize("step", ["posterior", "euler", "corrected"])
    def test_chained_steps_with_the_true_token_reproduce_the_forward_marginals(self, step: str) -> None:
        """8 · 3 two-sided z-tests at |z| < 4.5: correct chains fail for 1 in 6,000 seeds."""
        num_rows, own = 20_000, process()
        generator = torch.Generator().manual_seed(1)
        x_1 = torch.ones(num_rows, D, dtype=torch.int64)
        probs = torch.nn.functional.one_hot(x_1, K).double()
        x_t = own.draw_source((num_rows, D), generator)
        weight = {"weight": 0.3} if step == "corrected" else {}
        for t, s in itertools.pairwise(np.linspace(0, 1, 9)):
            times = [torch.full((num_rows,), time, dtype=torch.float64) for time in (t, s)]
            draws = torch.rand(num_rows, D, generator=generator, dtype=torch.float64)
            x_t = draw_categorical(getattr(own, step)(probs, x_t, *times, **weight), draws)
            for i in range(D):
                expected = s + (1 - s) * PI[i, 1]
                deviation = max(np.sqrt(expected * (1 - expected) / num_rows), 1e-12)
                assert abs((x_t[:, i] == 1).double().mean().item() - expected) < 4.5 * deviation

    @pytest.mark.parametrize("t", [0.2, 0.6])
    def test_the_loss_on_pairs_is_smallest_where_the_pairs_own_denoiser_is_implied(self, t: float) -> None:
        """One position, all pairs of a random coupling: at p(b) ∝ P(x_1 = b | z) / q_t(z | b), and 50 others nearby."""
        pi, own = PI[0], process(marginal=PI[:1])
        coupling = np.random.default_rng(0).dirichlet(np.ones(K * K)).reshape(K, K)
        law = np.zeros((K, K))  # [z, x_1]
        for x_0, x_1 in itertools.product(range(K), repeat=2):
            law[x_1, x_1] += t * coupling[x_0, x_1]
            law[x_0, x_1] += (1 - t) * coupling[x_0, x_1]
        best = law / (t * np.eye(K) + (1 - t) * pi[:, None])
        best = torch.from_numpy(best / best.sum(1, keepdims=True))[:, None]
        states, times = torch.arange(K)[:, None], torch.full((K,), t, dtype=torch.float64)
        np.testing.assert_allclose(own.denoiser(best, states, times)[:, 0], law / law.sum(1, keepdims=True), rtol=1e-12)

        def mean_loss(logits: torch.Tensor) -> float:
            losses = [own.loss(logits, states, torch.full_like(states, b), times)[:, 0] for b in range(K)]
            return float((torch.from_numpy(law) * torch.stack(losses, dim=1)).sum())

        generator = torch.Generator().manual_seed(0)
        others = [mean_loss(best.log() + 0.3 * torch.randn(best.shape, generator=generator)) for _ in range(50)]
        assert mean_loss(best.log()) < min(others)

    def test_sources_are_of_the_marginals_and_keyed_ones_depend_on_the_sample_alone(self) -> None:
        own = process()
        drawn = own.draw_source((30_000, D), torch.Generator().manual_seed(0)).numpy()
        keyed = own.keyed_source(3, np.arange(30_000), D)
        for tokens in (drawn, keyed):
            for column, pi in zip(tokens.T, PI, strict=True):
                assert stats.chisquare(np.bincount(column, minlength=K), pi * len(column)).pvalue > ALARM
        np.testing.assert_array_equal(own.keyed_source(3, np.array([40, 8]), D), keyed[[40, 8]])

    @pytest.mark.parametrize(
        ("marginal", "message"),
        [
            (None, "got no marginals"),
            (torch.ones(3, 4), r"shape \[3, 4\], expected \[D, 3\]"),
            (torch.tensor([[0.5, 0.5, 0.0]]), "all positive"),
            (torch.tensor([[0.5, 0.4, 0.3]]), "do not sum to 1"),
        ],
    )
    def test_what_is_no_marginals_is_refused(self, marginal: torch.Tensor | None, message: str) -> None:
        with pytest.raises(SpecError, match=message):
            processes.build("marginal", 3, "others", marginal)
        with pytest.raises(SpecError, match="length: got 2, but the marginals of this process are of 3 positions"):
            process().keyed_source(0, np.arange(2), 2)


class TestMarginals:
    def test_they_are_counted_exactly_in_any_order_and_blocks(self) -> None:
        rows = np.random.default_rng(0).integers(0, 4, (1000, 6), np.uint8)
        shares = np.array([[(rows[:, i] == token).mean() for token in range(4)] for i in range(6)])
        np.testing.assert_allclose(marginals(rows, 4), (1 - UNIFORM_SHARE) * shares + UNIFORM_SHARE / 4, rtol=1e-15)
        counts = MarginalCounts(6, 4)
        for block in np.array_split(rows[::-1], 7):
            counts.add(block)
        np.testing.assert_array_equal(counts.marginals(), marginals(np.tile(rows, (3, 1)), 4))

    @pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint32, np.int64, np.uint64])
    def test_tokens_of_any_integers_are_counted_a_few_rows_at_a_time(
        self, dtype: type[np.integer], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rows = np.random.default_rng(0).integers(0, 4, (1000, 6), np.uint8)
        expected = marginals(rows, 4)
        for tokens_at_once in (2**22, 100, 1):
            monkeypatch.setattr("pairflow.marginals._TOKENS_AT_ONCE", tokens_at_once)
            np.testing.assert_array_equal(marginals(rows.astype(dtype), 4), expected)

    def test_a_table_that_is_too_large_is_refused(self) -> None:
        with pytest.raises(SpecError, match="40 positions of 100,000,000 tokens"):
            MarginalCounts(40, 100_000_000)
