"""What a network learns by each objective, and both conversions, against Bayes' rule over a tiny problem's states."""

from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy import stats
from torch import nn

from pairflow import processes
from pairflow.checkpoint import load_model
from pairflow.distillation.dcd import distill
from pairflow.errors import SpecError
from pairflow.objectives import LOSSES
from pairflow.processes import AbsorbingProcess, UniformProcess
from pairflow.sampling import SAMPLERS, network_calls, sample
from pairflow.spec import DistillationSpec, EvaluationSpec, ModelSpec, SamplingSpec, TrainingSpec, fingerprint
from pairflow.training import fit

from .exact_denoiser import APART, LENGTH, POINTS, SHARES, VOCAB_SIZE, all_states, exact_model, likelihoods

OTHERS, ALL = UniformProcess(VOCAB_SIZE), UniformProcess(VOCAB_SIZE, "all")
STATES = all_states(OTHERS)
TIMES = (0.0, 0.2, 0.6, 0.999)


def bayes(t: float, states: torch.Tensor = STATES, points: np.ndarray = POINTS) -> torch.Tensor:
    """P(x_1^i = a | x_t) by enumeration of the data points and of the path from each: float64 [S, D, K]."""
    kept = (states == torch.from_numpy(points)[:, None]).double()
    chance = torch.from_numpy(SHARES)[:, None] * (t * kept + (1 - t) / VOCAB_SIZE).prod(dim=-1)
    one_hot = nn.functional.one_hot(torch.from_numpy(points), VOCAB_SIZE).double()
    return torch.einsum("ms,mdk->sdk", chance / chance.sum(dim=0), one_hot)


class Bayes(nn.Module):
    """The perfect network of cross-entropy: log p_{1|t}."""

    def __init__(self, points: np.ndarray = POINTS) -> None:
        super().__init__()
        self.points = points
        self.asked: list[float] = []

    def forward(self, x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        self.asked.append(round(float(t[0]), 3))
        return bayes(float(t[0]), x_t, self.points).log().clamp_min(-1e4)


def at(t: float, rows: int = len(STATES)) -> torch.Tensor:
    return torch.full((rows,), t, dtype=torch.float64)


def others(t: float) -> torch.Tensor:
    """π of every state, from the leave-one-out posteriors: float64 [S, D, K]."""
    return exact_model(OTHERS)(STATES, at(t)).softmax(dim=-1)


@pytest.mark.parametrize("time", TIMES)
def test_either_prediction_gives_the_other(time):
    """Eq. (3.5) and (3.8): leave-one-out posteriors, and Bayes' rule over whole states, computed apart."""
    torch.testing.assert_close(OTHERS.denoiser(others(time), STATES, at(time)), bayes(time))
    torch.testing.assert_close(ALL.others(bayes(time), STATES, at(time)), others(time), rtol=1e-7, atol=1e-9)
    assert ALL.denoiser(bayes(time), STATES, at(time)).equal(bayes(time))
    assert OTHERS.others(others(time), STATES, at(time)).equal(others(time))
    assert (bayes(time) - others(time)).abs().max() > 0.1 or time == 0


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
@pytest.mark.parametrize(("t", "s"), [(0.0, 0.3), (0.25, 0.5), (0.6, 1.0)])
def test_a_step_is_the_same_for_either_prediction(sampler, t, s):
    rule = SAMPLERS[sampler]
    steps = [
        rule(process, probs, STATES, at(t), at(s), 0.3) for process, probs in ((OTHERS, others(t)), (ALL, bayes(t)))
    ]
    torch.testing.assert_close(*steps)


@pytest.mark.parametrize(("objective", "predicts"), [("elbo", "others"), ("mixed", "others"), ("cross_entropy", "all")])
@pytest.mark.parametrize("time", [0.1, 0.5, 0.9])
def test_what_an_objective_teaches(objective, predicts, time):
    """A table of free logits, one for each state, is fitted to the expected loss over all states and data points."""
    process = UniformProcess(VOCAB_SIZE, predicts)
    assert TrainingSpec(objective=objective).predicts == predicts
    logits = torch.zeros(len(STATES), LENGTH, VOCAB_SIZE, requires_grad=True)
    chance = torch.from_numpy(SHARES)[:, None] * likelihoods(process, STATES, time).prod(dim=-1)
    times = torch.full((len(STATES),), time)
    optimizer = torch.optim.LBFGS([logits], max_iter=300, history_size=30, line_search_fn="strong_wolfe")

    def expected_loss() -> torch.Tensor:
        optimizer.zero_grad()
        total = torch.zeros((), dtype=torch.float64)
        for m, point in enumerate(torch.from_numpy(POINTS)):
            loss = LOSSES[objective](process, logits, STATES, point.expand_as(STATES), times)
            total = total + (chance[m] * loss.double().sum(dim=-1)).sum()
        total.backward()
        return total

    for _ in range(4):
        optimizer.step(expected_loss)
    expected = bayes(time) if predicts == "all" else others(time)
    torch.testing.assert_close(logits.detach().softmax(dim=-1).double(), expected, rtol=0, atol=0.02)


@pytest.mark.parametrize("time", [1e-3, 0.3, 0.9, 0.999])
def test_losses_of_either_prediction_are_one_loss(time):
    """The bound and cross-entropy of Bayes' rule, whichever way a network says it; and their mixture, Eq. (3.9)."""
    times = torch.full((len(STATES),), time)
    for point in torch.from_numpy(POINTS):
        target = point.expand_as(STATES)
        surprise = -bayes(time).log().clamp_min(-1e4).gather(-1, target[..., None]).squeeze(-1).float()
        of_others, of_all = ((p, q.log().clamp_min(-80)) for p, q in ((OTHERS, others(time)), (ALL, bayes(time))))
        possible = surprise < 70
        bounds = [process.loss(logits, STATES, target, times)[possible] for process, logits in (of_others, of_all)]
        torch.testing.assert_close(*bounds, rtol=1e-3, atol=1e-3)
        for process, logits in (of_others, of_all):
            entropy = process.cross_entropy(logits, STATES, target, times)
            torch.testing.assert_close(entropy[possible], surprise[possible], rtol=1e-4, atol=1e-5)
            mixed = LOSSES["mixed"](process, logits, STATES, target, times)[possible]
            torch.testing.assert_close(mixed, bounds[0] + (1 - time) * surprise[possible], rtol=1e-3, atol=1e-3)


def test_masks_have_one_prediction_and_one_cross_entropy():
    """A mask is no evidence: cross-entropy counts masks alone, and both predictions are the same."""
    process = AbsorbingProcess(VOCAB_SIZE, "all")
    logits = torch.randn(1, 4, VOCAB_SIZE, generator=torch.Generator().manual_seed(0))
    x_t, target = torch.tensor([[3, 0, 3, 2]]), torch.tensor([[1, 0, 2, 2]])
    t = torch.tensor([0.25])
    entropy = process.cross_entropy(logits, x_t, target, t)
    expected = [nn.functional.cross_entropy(logits[0, i], target[0, i]).item() if i in (0, 2) else 0 for i in range(4)]
    assert entropy[0].tolist() == pytest.approx(expected)
    torch.testing.assert_close(process.loss(logits, x_t, target, t), entropy / 0.75)
    assert process.others(logits, x_t, t) is logits


def draw(process, model, final_step, **settings: Any):
    sampler = settings.pop("sampler", "ancestral")
    spec = SamplingSpec(sampler=sampler, final_step=final_step, corrections=1.0 if sampler == "psi" else None)
    given: dict[str, Any] = {
        "num_samples": 64,
        "num_steps": 1,
        "length": LENGTH,
        "device": "cpu",
        "progress": False,
    } | settings
    return sample(model, process, spec, **given)


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
@pytest.mark.parametrize(("points", "final_step"), [(POINTS, "ancestral"), (APART, "greedy"), (POINTS, "argmax")])
def test_the_exact_network_of_cross_entropy_samples_the_data(sampler, points, final_step):
    """χ² over the four data points at level 1e-4 each, seed fixed: correct samplers fail for 1 in 1,100 seeds."""
    given: dict[str, Any] = {"num_samples": 2048, "num_steps": 256, "batch_size": 2048, "sampler": sampler}
    samples = draw(ALL, Bayes(points), final_step, **given).tokens
    counts = np.array([(samples == point).all(axis=1).sum() for point in points])
    assert counts.sum() >= 0.99 * len(samples)
    assert stats.chisquare(counts, SHARES * counts.sum()).pvalue > 1e-4


def test_an_argmax_end_is_the_last_of_as_many_calls_as_steps():
    model = Bayes()
    drawn = draw(ALL, model, "argmax", num_steps=2)
    assert model.asked == [0.001, 0.5]
    assert drawn.network_calls == network_calls(2, "argmax") == 2
    middle = torch.from_numpy(draw(ALL, Bayes(), "ancestral", num_steps=2, observer=(seen := Seen())).tokens).long()
    assert not np.array_equal(drawn.tokens, middle.numpy())
    np.testing.assert_array_equal(drawn.tokens, bayes(0.5, seen.states[1]).argmax(dim=-1))
    of_others = draw(OTHERS, exact_model(OTHERS), "argmax", num_steps=2)
    np.testing.assert_array_equal(of_others.tokens, drawn.tokens)


class Seen:
    """Keeps every state."""

    def __init__(self) -> None:
        self.states: list[torch.Tensor] = []

    def __call__(self, sample_ids: np.ndarray, step: int, x_t: torch.Tensor) -> None:
        self.states.append(x_t)


@pytest.mark.parametrize("predicts", ["others", "all"])
def test_one_call_is_a_greedy_end_alone_or_one_step_that_is_an_argmax_end(predicts):
    """From the source, where a token is no evidence of itself, so that both predictions are one: argmax at t = 0."""
    process = processes.build("uniform", VOCAB_SIZE, predicts)
    model = exact_model(process) if predicts == "others" else Bayes()
    greedy, argmax = draw(process, model, "greedy", num_steps=0), draw(process, model, "argmax", num_steps=1)
    assert greedy.network_calls == argmax.network_calls == network_calls(0, "greedy") == network_calls(1, "argmax") == 1
    np.testing.assert_array_equal(greedy.tokens, argmax.tokens)
    source = torch.from_numpy(process.keyed_source(0, np.arange(64), LENGTH))
    said = bayes(1e-3, source) if predicts == "all" else model(source, at(1e-3, 64))
    np.testing.assert_array_equal(greedy.tokens, said.argmax(dim=-1))
    for final_step in ("ancestral", "argmax"):
        with pytest.raises(SpecError, match="num_steps: got 0, expected at least 1"):
            draw(process, model, final_step, num_steps=0)


@pytest.mark.parametrize("final_step", ["greedy", "argmax"])
def test_one_call_fills_every_mask(final_step):
    process = AbsorbingProcess(VOCAB_SIZE)
    drawn = draw(process, exact_model(process), final_step, num_steps=int(final_step == "argmax"))
    marginal = np.stack([(SHARES[:, None] * (token == POINTS)).sum(axis=0) for token in range(VOCAB_SIZE)])
    np.testing.assert_array_equal(drawn.tokens, np.tile(marginal.argmax(axis=0), (64, 1)))
    assert drawn.network_calls == 1


def test_an_evaluation_asks_for_one_call_where_its_end_can_be_alone():
    assert EvaluationSpec(steps=(0, 1, 2)).steps == (0, 1, 2)
    for final_step, more in (("ancestral", ""), ("argmax", "there 1 step is one network call")):
        with pytest.raises(ValidationError, match=f"a greedy end alone, got final_step .{final_step}.*{more}"):
            EvaluationSpec(steps=(0, 1), final_step=final_step)


MODEL = ModelSpec(hidden_size=16, num_layers=1, num_heads=2, cond_size=8)
ROW = np.array([[4, 0, 3, 1, 2, 2]], np.uint8)


def train(folder, objective, num_steps=200, **options):
    spec = TrainingSpec(
        num_steps=num_steps,
        batch_size=8,
        warmup_steps=3,
        learning_rate=1e-2,
        ema_decay=0.9,
        coupling="independent",
        objective=objective,
    )
    rows = np.tile(ROW, (16, 1))
    given: dict[str, Any] = {
        "vocab_size": 5,
        "checkpoint_dir": folder,
        "validation": rows,
        "device": "cpu",
        "progress": False,
    }
    return fit(MODEL, spec, rows, **given | options)


@pytest.mark.parametrize("objective", ["cross_entropy", "mixed"])
def test_a_trained_network_is_sampled_for_what_it_learned(tmp_path, objective):
    """One repeated row: its bound is near 0, which it is not if one prediction is taken for the other."""
    result = train(tmp_path, objective)
    assert result.validation_nll is not None
    assert result.validation_nll < 0.1
    loaded = load_model(tmp_path, device="cpu")
    assert loaded.process.predicts == ("all" if objective == "cross_entropy" else "others")
    for final_step, num_steps in (("greedy", 0), ("greedy", 2), ("argmax", 1), ("argmax", 3), ("ancestral", 8)):
        drawn = draw(loaded.process, loaded.model, final_step, num_steps=num_steps, length=6).tokens
        assert (drawn == ROW).mean() > 0.95, (final_step, num_steps)


def test_a_training_goes_on_only_from_a_network_that_predicts_alike(tmp_path):
    train(tmp_path / "base", "cross_entropy", num_steps=2)
    with pytest.raises(
        SpecError, match=r"predicts from all positions, .* from others; set training.objective=cross_ent"
    ):
        train(tmp_path / "next", "elbo", num_steps=2, initial=tmp_path / "base")
    train(tmp_path / "same", "cross_entropy", num_steps=2, initial=tmp_path / "base")
    spec = DistillationSpec(num_steps=2, batch_size=4, num_intervals=2, update_teacher_every=1)
    rows = np.tile(ROW, (16, 1))
    distill(spec, tmp_path / "base", rows, vocab_size=5, checkpoint_dir=tmp_path / "dcd", device="cpu", progress=False)
    for name in ("same", "dcd"):
        assert load_model(tmp_path / name, device="cpu").process.predicts == "all"


def test_the_default_objective_leaves_fingerprints_as_they_were():
    """Those of trainings from before there was a choice, written down then."""
    assert fingerprint(TrainingSpec()) == "0fc452f773284638282c558e937c20956e61ca2b8467e76a14ba906435dca83b"
    assert "objective" not in TrainingSpec().model_dump(mode="json")
    assert fingerprint(TrainingSpec(objective="mixed")) != fingerprint(TrainingSpec())
