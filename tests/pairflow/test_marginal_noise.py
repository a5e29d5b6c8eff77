"""Noise from the data's marginals (docs/method.md §7): the process, sources and matches, training and checkpoints.

The process is held to float64 code written from its definition, transition matrices and Bayes' rule; the assignment to
scipy's and to χ² tests, each of which gives a false alarm once in 10,000 seeds; the seeds are fixed.
"""

import hashlib
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from scipy import stats
from scipy.optimize import linear_sum_assignment

from pairflow import processes
from pairflow.checkpoint import load_model
from pairflow.checkpoint_files import file_sha256
from pairflow.coupling import couple
from pairflow.coupling.assignment import couple_pairs
from pairflow.coupling.gains import UNITS_PER_NAT, match_weights
from pairflow.distillation.dcd import distill
from pairflow.distillation.redi import draw_pairs
from pairflow.errors import CheckpointError, SpecError
from pairflow.exported import export
from pairflow.marginals import UNIFORM_SHARE, MarginalCounts, marginals
from pairflow.processes import MarginalProcess, UniformProcess
from pairflow.sampling import draw_categorical, sample
from pairflow.spec import CouplingSpec, DistillationSpec, ModelSpec, RediSpec, SamplingSpec, TrainingSpec, fingerprint
from pairflow.training import fit
from pairflow.training_data import Placing

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

    def test_a_table_that_is_too_large_is_refused(self) -> None:
        with pytest.raises(SpecError, match="40 positions of 100,000,000 tokens"):
            MarginalCounts(40, 100_000_000)


SMALL = np.random.default_rng(5).choice(3, (50, 3), p=[0.6, 0.3, 0.1]).astype(np.uint8)


def spec_of(block_size: int | None = None, replicas: int = 1, seed: int = 4) -> CouplingSpec:
    return CouplingSpec(
        kind="assignment", noise="marginal", block_size=block_size, sources_per_target=replicas, seed=seed
    )


class TestAssignment:
    def test_both_marginals_are_exact(self) -> None:
        pairs = couple_pairs(SMALL, 0, 50 * 600, vocab_size=3, spec=spec_of(10, 600))
        keys = pairs.replica * 50 + pairs.sample_id
        assert sorted(keys) == list(range(50 * 600))
        pi = marginals(SMALL, 3)
        expected = np.einsum("a,b,c->abc", *pi).ravel() * len(pairs.source)
        codes = pairs.source @ np.array([9, 3, 1])
        assert stats.chisquare(np.bincount(codes, minlength=27), expected).pvalue > ALARM
        by_place = np.stack([np.bincount(place, minlength=27) for place in codes.reshape(-1, 10).T])
        assert stats.chi2_contingency(by_place).pvalue > ALARM

    @pytest.mark.parametrize(("vocab_size", "length"), [(43, 32), (2, 64), (3, 2000)])
    def test_no_other_assignment_counts_more(self, vocab_size: int, length: int) -> None:
        """By scipy, on gains that are summed here; of 8, 16 and 32 bits a pair."""
        rng = np.random.default_rng(length)
        shares = rng.dirichlet(np.full(vocab_size, 0.2), length)
        data = np.stack([rng.choice(vocab_size, 200, p=each) for each in shares], axis=1)
        pairs = couple_pairs(data, 0, 200, vocab_size=vocab_size, spec=spec_of())
        weights = np.rint(-UNITS_PER_NAT * np.log(marginals(data, vocab_size))).clip(1)
        gains = sum(
            (pairs.target[:, None, i] == pairs.source[None, :, i]) * weights[i, pairs.target[:, None, i]]
            for i in range(length)
        )
        assert np.trace(gains) == gains[linear_sum_assignment(gains, maximize=True)].sum()

    def test_however_it_is_cut(self) -> None:
        data = np.random.default_rng(0).integers(0, 70_000, (37, 9))
        spec = spec_of(8, 3)
        whole = couple_pairs(data, 0, 111, vocab_size=70_000, spec=spec)
        part = couple_pairs(data, 17, 60, vocab_size=70_000, spec=spec, num_threads=3)
        np.testing.assert_array_equal(part.source, whole.source[17:60])
        found = couple(
            whole.target[::-1],
            data,
            vocab_size=70_000,
            spec=spec,
            sample_ids=whole.sample_id[::-1],
            replicas=whole.replica[::-1],
        )
        np.testing.assert_array_equal(found, whole.source[::-1])

    def test_bytes_are_those_of_engine_version_1(self) -> None:
        pairs = couple_pairs(SMALL, 0, 100, vocab_size=3, spec=spec_of(20, 2))
        assert hashlib.sha256(pairs.source.tobytes()).hexdigest()[:16] == "fe06fd221c7b1ffe"

    def test_a_rare_match_counts_more(self) -> None:
        weights = match_weights(np.array([[0.98, 0.02]]))
        assert weights.tolist() == [[1, 31]]  # −log 0.02 = 3.91 nats

    def test_uniform_specs_keep_their_json_and_fingerprint(self) -> None:
        uniform = CouplingSpec(kind="assignment")
        assert "noise" not in uniform.model_dump(mode="json")
        assert fingerprint(uniform) == fingerprint(CouplingSpec(kind="assignment", noise="uniform"))
        assert fingerprint(uniform) != fingerprint(spec_of())
        assert (uniform.title, spec_of().title) == ("assignment B4096", "assignment B4096 marginal")
        with pytest.raises(ValidationError, match="noise can only be given for coupling 'assignment'"):
            CouplingSpec(noise="marginal")


MODEL = ModelSpec(hidden_size=16, num_layers=1, num_heads=2, cond_size=8)
SPEC = TrainingSpec(num_steps=10, batch_size=8, warmup_steps=2, ema_decay=0.9, process="marginal")
PAIRS = couple_pairs(SMALL, 0, 100, vocab_size=3, spec=spec_of(20, 2))


def train(folder: Path, **options: Any) -> Path:
    given: dict[str, Any] = {"vocab_size": 3, "device": "cpu", "progress": False, "checkpoint_every": 4} | options
    target, source = given.pop("pairs", (PAIRS.target, PAIRS.source))
    return fit(MODEL, given.pop("spec", SPEC), target, source, checkpoint_dir=folder, **given).checkpoint


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("trained"), validation=SMALL[:9])


def drawn(path: Path, num_steps: int = 2) -> np.ndarray:
    loaded = load_model(path, device="cpu")
    how = SamplingSpec()
    return sample(
        loaded.model, loaded.process, how, num_samples=40, num_steps=num_steps, length=3, device="cpu", progress=False
    ).tokens


class TestTraining:
    def test_a_checkpoint_has_the_marginals_of_the_rows(self, trained: Path) -> None:
        loaded = load_model(trained, device="cpu")
        assert isinstance(loaded.process, MarginalProcess)
        np.testing.assert_array_equal(loaded.process.noise(torch.zeros((), dtype=torch.float64)), marginals(SMALL, 3))
        assert loaded.state["validation_nll"] > 0

    def test_an_interrupted_and_a_streamed_training_end_with_the_same_bits(self, trained: Path, tmp_path: Path) -> None:
        def stop(metrics: Any) -> None:
            if metrics.step == 5:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "cut", on_step=stop, log_every=1)
        ended = (train(tmp_path / "cut"), train(tmp_path / "streamed", placing=Placing("streamed")))
        expected = load_file(trained / "tensors.safetensors")
        for path in ended:
            tensors = load_file(path / "tensors.safetensors")
            assert all(torch.equal(value, expected[name]) for name, value in tensors.items())

    def test_what_is_exported_samples_as_the_checkpoint_does(self, trained: Path, tmp_path: Path) -> None:
        export(trained, tmp_path / "model", page="")
        np.testing.assert_array_equal(drawn(tmp_path / "model"), drawn(trained))

    def test_with_independent_sources_it_learns_one_repeated_row(self, tmp_path: Path) -> None:
        row = np.array([[2, 0, 1]], np.uint8).repeat(16, axis=0)
        for objective in ("elbo", "cross_entropy", "mixed"):
            spec = SPEC.model_copy(
                update={"num_steps": 150, "learning_rate": 1e-2, "coupling": "independent", "objective": objective}
            )
            path = train(tmp_path / objective, spec=spec, pairs=(row, None), checkpoint_every=150)
            assert (drawn(path) == row[0]).mean() > 0.95

    def test_a_training_that_goes_on_from_a_model_keeps_its_marginals(self, trained: Path, tmp_path: Path) -> None:
        own = np.zeros((16, 3), np.uint8)
        path = train(tmp_path, initial=trained, pairs=(own, own))
        assert torch.equal(
            load_file(path / "tensors.safetensors")["process.marginal"],
            load_file(trained / "tensors.safetensors")["process.marginal"],
        )

    def test_refinements_are_of_uniform_noise(self, trained: Path, tmp_path: Path) -> None:
        with pytest.raises(SpecError, match="process 'marginal', but this distillation needs 'uniform'"):
            distill(DistillationSpec(), trained, SMALL, vocab_size=3, checkpoint_dir=tmp_path)
        with pytest.raises(SpecError, match="process 'marginal'; use a model of process 'uniform'"):
            draw_pairs(load_model(trained, device="cpu"), RediSpec(num_pairs=4))

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda tensors: tensors.pop("process.marginal"), "got no marginals"),
            (lambda tensors: tensors["process.marginal"].zero_(), "all positive"),
        ],
    )
    def test_damaged_marginals_are_named(self, trained: Path, tmp_path: Path, change: Any, message: str) -> None:
        folder = tmp_path / "step-00000010"
        folder.mkdir()
        tensors = load_file(trained / "tensors.safetensors")
        change(tensors)
        save_file(tensors, folder / "tensors.safetensors")
        state = (trained / "state.json").read_text()
        before, after = (file_sha256(each / "tensors.safetensors") for each in (trained, folder))
        (folder / "state.json").write_text(state.replace(before, after))
        with pytest.raises(CheckpointError, match=f"describes no model: .*{message}"):
            load_model(folder)
