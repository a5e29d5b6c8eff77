"""Pairs of the data's marginals, and models that are trained on them (docs/method.md §7).

The assignment is held to scipy's and to χ² tests, each of which gives a false alarm once in 10,000 seeds; the seeds are
fixed.
"""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from scipy import stats
from scipy.optimize import linear_sum_assignment

from pairflow.checkpoint import load_model
from pairflow.checkpoint_files import file_sha256
from pairflow.coupling import couple
from pairflow.coupling.assignment import couple_pairs
from pairflow.coupling.gains import UNITS_PER_NAT, match_weights
from pairflow.distillation.dcd import distill
from pairflow.distillation.redi import draw_pairs
from pairflow.errors import CheckpointError, SpecError
from pairflow.exported import export
from pairflow.marginals import marginals
from pairflow.processes import MarginalProcess
from pairflow.sampling import sample
from pairflow.spec import CouplingSpec, DistillationSpec, ModelSpec, RediSpec, SamplingSpec, TrainingSpec, fingerprint
from pairflow.training import fit
from pairflow.training_data import Placing

ALARM = 1e-4


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
