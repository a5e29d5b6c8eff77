"""A model that wins by copying training rows is seen at a glance: in the sentence and in the table."""

from pathlib import Path

import pytest

from flows.pages.tables import COPIES, comparison_rows, score_names
from flows.pages.verdict import verdict
from flows.results import ModelScores
from pairflow.metrics.labels import label

from ..test_report import model, result_of


def copying(label: str, mean: float, rate: float | None, held_out: float | None = 0.017) -> ModelScores:
    """A model with 1 and 2 steps, of whose samples that share is copied at 1 step."""
    rates = {} if rate is None else {"training_match_rate": rate}
    bare = model(label, label.lower(), {"num_valid": mean, **rates}, {"num_valid": 9})
    facts = {} if held_out is None else {"held_out_training_match_rate": held_out}
    return bare.model_copy(update={"facts": facts})


@pytest.mark.parametrize(
    ("rate", "held_out", "more"),
    [
        (0.043, 0.017, "; of PairFlow's samples there 4.3 % copy training rows, of held-out rows 1.7 %"),
        (0.034, 0.017, ""),  # not above twice as many
        (0.011, 0.0, "; of PairFlow's samples there 1.1 % copy training rows, of held-out rows 0 %"),
        (0.009, 0.0, ""),  # so few may be chance
        (0.5, None, ""),  # no held-out part to compare with
        (None, 0.0, ""),
    ],
)
def test_the_sentence(tmp_path: Path, rate: float | None, held_out: float | None, more: str) -> None:
    """Of the best alone: that another copies does not make it better."""
    result = result_of(tmp_path, copying("UDLM", 1, 0.9, held_out), copying("PairFlow", 5, rate, held_out))
    assert verdict(result) == f"At 1 step PairFlow 5 against UDLM 1; level at 2 steps{more}"


def test_the_table(tmp_path: Path) -> None:
    result = result_of(tmp_path, copying("UDLM", 1, 0.0078), copying("PairFlow", 5, None))
    assert [row[COPIES] for row in comparison_rows(result)] == ["0.78, –", "–, –"]
    assert "training_match_rate" in score_names(result.methods)
    assert label("training_match_rate").higher_is_better is label("nearest_training_hamming").higher_is_better is None
