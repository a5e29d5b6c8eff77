"""The sentence that says what a comparison came to, against cases whose end is plain to see."""

from pathlib import Path

import pytest

from flows.pages.verdict import contest, measured, number, verdict
from flows.results import Headline, ModelScores, Score

from ..test_report import model, result_of

_DISTANCE = Headline(name="fid", label="FID", higher_is_better=False)


def curve(label: str, *means: float | None, std: float = 0) -> ModelScores:
    """A model whose distance with 1, 2, 4, … steps is this; None: it has none."""
    bare = model(label, label.lower(), *({} if mean is None else {"fid": mean} for mean in means))
    steps = [
        step.model_copy(
            update={"scores": {name: Score(mean=score.mean, std=std) for name, score in step.scores.items()}}
        )
        for step in bare.steps
    ]
    return bare.model_copy(update={"headline": _DISTANCE, "steps": tuple(steps)})


@pytest.mark.parametrize(
    ("udlm", "pairflow", "sentence"),
    [
        ((6.45, 4, 2, 1.0), (2.43, 2, 1.5, 0.99), "At 1 step PairFlow 2.43 against UDLM 6.45; level at 8 steps"),
        ((6.45, 4, 2, 1.0), (2.43, 2, 2.04, 0.99), "At 1 step PairFlow 2.43 against UDLM 6.45; level from 4 steps"),
        ((6.45, 4), (2.43, 2), "At 1 step PairFlow 2.43 against UDLM 6.45; ahead throughout"),
        ((6.45, 1, 0.5), (2.43, 2, 2), "At 1 step PairFlow 2.43 against UDLM 6.45; UDLM ahead from 2 steps"),
        ((6.45, 2, 2), (2.43, 2, 1), "At 1 step PairFlow 2.43 against UDLM 6.45; PairFlow ahead at 4 steps"),
        ((1.0,), (1.01,), "At 1 step UDLM 1 and PairFlow 1.01 are level"),
        ((1.0, 1), (1.01, 1), "At 1 step UDLM 1 and PairFlow 1.01 are level; level throughout"),
        ((None, 3), (1234.6, 1), "At 1 step PairFlow 1,235, and no other has a score; ahead throughout"),
        ((None,), (None,), "At 1 step no model has a score"),
    ],
)
def test_of_two(tmp_path: Path, udlm: tuple[float, ...], pairflow: tuple[float, ...], sentence: str) -> None:
    assert verdict(result_of(tmp_path, curve("UDLM", *udlm), curve("PairFlow", *pairflow))) == sentence


def test_deviations_make_two_level(tmp_path: Path) -> None:
    apart, level = (
        verdict(result_of(tmp_path, curve("UDLM", 3, 3, std=std), curve("PairFlow", 2, 2, std=std)))
        for std in (0.49, 0.5)
    )
    assert apart == "At 1 step PairFlow 2 against UDLM 3; ahead throughout"
    assert level == "At 1 step PairFlow 2 and UDLM 3 are level; level throughout"


def test_more_is_better_where_the_headline_says_so(tmp_path: Path) -> None:
    result = result_of(
        tmp_path,
        model("UDLM", "udlm", {"num_valid": 0, "num_samples": 16}),
        model("PairFlow", "pairflow", {"num_valid": 5, "num_samples": 16}),
    )
    assert verdict(result) == "At 1 step PairFlow 5 against UDLM 0"
    assert measured(result) == "valid molecules of 16 samples, higher is better"


def test_of_one_and_of_many(tmp_path: Path) -> None:
    one = curve("PairFlow", 2, 1.5)
    assert verdict(result_of(tmp_path, one)) == "At 1 step PairFlow 2, at 2 steps 1.5"
    many = [curve("MDLM", 9, 1), curve("UDLM", 6, 2), one]
    assert verdict(result_of(tmp_path, *many)) == "At 1 step PairFlow 2, then UDLM 6, MDLM 9; MDLM ahead at 2 steps"
    close = [curve("MDLM", 9, 5), curve("UDLM", 2.01, 2), one]
    sentence = "At 1 step PairFlow 2, then UDLM 2.01, MDLM 9; PairFlow ahead at 2 steps"
    assert verdict(result_of(tmp_path, *close)) == sentence
    assert verdict(result_of(tmp_path, curve("MDLM", 9, 5), curve("UDLM", 6, 1.5), one)).endswith(
        "; the first two level at 2 steps"
    )
    assert contest(many) == "MDLM, UDLM and PairFlow"
    assert contest(many[1:]) == "PairFlow against UDLM"


@pytest.mark.parametrize(
    ("value", "text"),
    [(2.4312, "2.43"), (0, "0"), (123.4, "123"), (12345, "12,345"), (0.00012, "0.00012"), (-0.5, "-0.5")],
)
def test_numbers_have_no_exponent(value: float, text: str) -> None:
    assert number(value) == text
