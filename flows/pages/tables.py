"""The comparison as tables in the paper's layout: a row a method, a column a number of sampling steps."""

from collections.abc import Sequence
from dataclasses import dataclass

from flows.pages.verdict import TRAINING_MATCH_RATE, in_steps
from flows.results import NUM_SAMPLES, EvaluateResult, MethodScores, Score
from pairflow.metrics.labels import Label, in_order, label

ABSENT = "–"
"""In the place of a score that could not be had, such as a distance where no molecule is valid."""
NETWORK_CALLS = "network calls"
"""The first column after the scores: in the order of the steps."""
COPIES = "copies (%)"
"""Samples that are training rows: in the order of the steps."""


def comparison_rows(result: EvaluateResult) -> list[dict[str, object]]:
    """The headline score by steps, then the costs, of every method; a browser sorts names that look like numbers."""
    costs = {each.method: each for each in result.costs}
    rows: list[dict[str, object]] = []
    for method in result.methods:
        cost = costs.get(method.method) if method.reference is None else None
        by_steps = {in_steps(step.num_steps): shown(step.scores.get(method.headline.name)) for step in method.steps}
        rows.append(
            {
                "method": method.label,
                **by_steps,
                NETWORK_CALLS: _calls(method),
                COPIES: _copies(method),
                "pairing (s)": "" if cost is None else shown(cost.pairing),
                "training (s)": "" if cost is None else shown(cost.training),
                "refinement (s)": "" if cost is None else shown(cost.refinement),
            }
        )
    return rows


@dataclass(frozen=True)
class Cell:
    """One score of one model with one number of steps.

    Attributes:
        text: mean and deviation.
        best: whether no other model's mean is better with as many steps, and some model's is worse.
    """

    text: str
    best: bool


@dataclass(frozen=True)
class ScoreTable:
    """One score of all models.

    Attributes:
        name: of the score.
        label: how it is shown.
        rows: model's label -> a cell for each number of steps.
    """

    name: str
    label: Label
    rows: dict[str, list[Cell]]


def score_names(methods: Sequence[MethodScores]) -> list[str]:
    """The scores that some method has with some number of steps: the headline first, the number of samples left out."""
    headline = methods[0].headline.name
    found = in_order(name for method in methods for step in method.steps for name in step.scores)
    return [headline, *(name for name in found if name not in (headline, NUM_SAMPLES))]


def score_tables(methods: Sequence[MethodScores]) -> list[ScoreTable]:
    """Every score by number of sampling steps, the headline first."""
    return [ScoreTable(name, label(name), _cells(methods, name)) for name in score_names(methods)]


def _cells(methods: Sequence[MethodScores], name: str) -> dict[str, list[Cell]]:
    by_method = {method.label: [step.scores.get(name) for step in method.steps] for method in methods}
    better = label(name).higher_is_better
    rows: dict[str, list[Cell]] = {each: [] for each in by_method}
    for place in range(len(methods[0].steps)):
        column = {each: scores[place] for each, scores in by_method.items()}
        means = [score.mean for score in column.values() if score is not None]
        told_apart = better is not None and len(set(means)) > 1
        best = (max if better else min)(means) if told_apart else None
        for each, score in column.items():
            rows[each].append(Cell(shown(score), best is not None and score is not None and score.mean == best))
    return rows


def shown(score: Score | None) -> str:
    """Mean and, if there is one, deviation."""
    if score is None:
        return ABSENT
    return f"{score.mean:.4g}" + (f" ± {score.std:.2g}" if score.std else "")


def _calls(method: MethodScores) -> str:
    """Network calls a sample, in the order of the steps."""
    return ", ".join(f"{step.num_network_calls:.3g}" for step in method.steps)


def _copies(method: MethodScores) -> str:
    """Samples that are training rows, in per cent, in the order of the steps."""
    found = [step.scores.get(TRAINING_MATCH_RATE) for step in method.steps]
    return ", ".join(ABSENT if each is None else f"{100 * each.mean:.2g}" for each in found)
