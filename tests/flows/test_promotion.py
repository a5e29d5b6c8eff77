"""When a candidate takes the champion's place: the rule against SciPy's t-test, its error rate, and its words."""

import math
from fractions import Fraction

import numpy as np
import pytest
from scipy import stats

from flows.contest.promotion import in_words, judge
from pairflow.errors import SpecError


def test_by_hand() -> None:
    """Differences 2, 4, 6 and a margin of 0: mean 4, deviation 2, t(0.95, 2) = 2.919986 (any table)."""
    verdict = judge([12, 14, 16], [10, 10, 10], higher_is_better=True, margin=0, confidence=0.95)
    assert (verdict.candidate, verdict.champion, verdict.difference) == (14, 10, 4)
    assert verdict.at_least == pytest.approx(4 - 2.919986 * 2 / math.sqrt(3), abs=1e-5)  # 0.628
    assert verdict.promote
    strict = judge([12, 14, 16], [10, 10, 10], higher_is_better=True, margin=0.07, confidence=0.95)
    assert strict.required == pytest.approx(0.7)
    assert not strict.promote


@pytest.mark.parametrize("higher_is_better", [True, False])
@pytest.mark.parametrize("margin", [0.0, 0.02])
def test_agrees_with_the_paired_t_test(higher_is_better: bool, margin: float) -> None:
    """The margin moves the champion's scores, as more or less of them is asked for; then it is SciPy's test."""
    random = np.random.default_rng(5)
    promoted = 0
    for _ in range(100):
        champion = random.normal(100, 3, size=6)
        candidate = champion + random.normal(2 if higher_is_better else -2, 3, size=6)
        asked = champion * (1 + margin if higher_is_better else 1 - margin)
        expected = stats.ttest_rel(candidate, asked, alternative="greater" if higher_is_better else "less").pvalue < 0.1
        verdict = judge(
            candidate.tolist(), champion.tolist(), higher_is_better=higher_is_better, margin=margin, confidence=0.9
        )
        assert verdict.promote == expected
        promoted += verdict.promote
    assert 4 < promoted < 96  # both answers are met


@pytest.mark.parametrize(("num_trials", "confidence"), [(2, 0.95), (5, 0.95), (5, 0.8)])
def test_false_promotions(num_trials: int, confidence: float) -> None:
    """Of candidates that are better by the margin exactly, the share 1 − confidence is promoted.

    Binomial over 2,000 contests; a false alarm of this test has probability 1e-6 a case.
    """
    random = np.random.default_rng(11)
    contests, margin = 2000, 0.05
    promoted = 0
    for _ in range(contests):
        shared = random.normal(0, 4, size=num_trials)  # equal seeds: both models have good and bad trials together
        champion = 100 + shared
        candidate = 105 + 1.05 * shared + random.normal(0, 1, size=num_trials)
        promoted += judge(
            candidate.tolist(), champion.tolist(), higher_is_better=True, margin=margin, confidence=confidence
        ).promote
    low, high = stats.binom(contests, 1 - confidence).interval(1 - 1e-6)
    assert low <= promoted <= high


@pytest.mark.parametrize("higher_is_better", [True, False])
@pytest.mark.parametrize("scores", [[3.0, 5.0, 4.0], [0.0, 0.0], [7.0, 7.0]])
def test_a_tie_keeps_the_champion(scores: list[float], higher_is_better: bool) -> None:
    verdict = judge(scores, scores, higher_is_better=higher_is_better, margin=0, confidence=0.5)
    assert (verdict.difference, verdict.promote) == (0, False)


def test_without_scatter_the_margin_alone_decides() -> None:
    for gain, promote in ((Fraction(1, 4), True), (Fraction(1, 8), False), (Fraction(1, 16), False)):
        better = float(8 * (1 + gain))
        verdict = judge([better] * 4, [8.0] * 4, higher_is_better=True, margin=0.125, confidence=0.99)
        assert verdict.promote is promote


@pytest.mark.parametrize("scores", [([1.0], [2.0]), ([], []), ([1.0, 2.0], [1.0, 2.0, 3.0])])
def test_too_few_trials(scores: tuple[list[float], list[float]]) -> None:
    with pytest.raises(SpecError, match="two trials or more"):
        judge(*scores, higher_is_better=True, margin=0, confidence=0.95)


@pytest.mark.parametrize(
    ("candidate", "margin", "says"),
    [
        ([12, 14, 16], 0.0, "better by 4, by 0.628 at least with confidence 0.95, and 0 (0 of the champion's score)"),
        ([10, 10, 10], 0.0, "which is the same"),
        ([9, 9, 9.5], 0.0, "which is worse"),
        ([9, 14, 8], 0.0, "better by 0.333, but perhaps by chance (confidence 0.95)"),
        ([12, 14, 16], 0.2, "by 0.628 at least with confidence 0.95, and 2 (0.2 of the champion's score) is asked for"),
    ],
)
def test_in_words(candidate: list[float], margin: float, says: str) -> None:
    verdict = judge(candidate, [10, 10, 10], higher_is_better=True, margin=margin, confidence=0.95)
    words = in_words(verdict, label="valid molecules", num_steps=1, trials=3, margin=margin, confidence=0.95)
    assert words.startswith("valid molecules at 1 step is ")
    assert says in words
