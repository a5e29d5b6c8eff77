"""Results of flows: what they refuse, and scores over several training seeds."""

import pytest
from pydantic import ValidationError

from flows.results import EvaluateResult, Score, over_seeds

from .scores import model_scores


def test_results_refuse_what_they_do_not_know() -> None:
    with pytest.raises(ValidationError):
        EvaluateResult.model_validate({"nosuch": 1})


def test_scores_of_several_training_seeds() -> None:
    udlm, pairflow = over_seeds([model_scores("udlm", 3, 0), model_scores("pairflow", 2), model_scores("udlm", 5, 1)])
    assert (udlm.method, pairflow.method) == ("udlm", "pairflow")
    valid = udlm.steps[2].scores["num_valid"]  # of 12 and 20
    assert (valid.mean, valid.std) == (16, pytest.approx(8 / 2**0.5))
    assert pairflow.steps[2].scores["num_valid"] == Score(mean=8, std=0.5)  # one seed: over its trials


def test_a_model_by_reference_is_a_line_of_its_own() -> None:
    names = {"label": "PairFlow (m@champion)", "reference": "m@champion"}
    champion = model_scores("pairflow", 7).model_copy(update=names)
    methods = over_seeds([model_scores("pairflow", 2), champion])
    assert [(each.label, each.reference) for each in methods] == [
        ("PairFlow", None),
        ("PairFlow (m@champion)", "m@champion"),
    ]
    assert [each.steps[0].scores["num_valid"].mean for each in methods] == [2, 7]
