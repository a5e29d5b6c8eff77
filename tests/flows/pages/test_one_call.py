"""No step and a greedy end is one network call: how tables, figures and sentences show it."""

from pathlib import Path

import pytest

from flows.lineage import score_table
from flows.pages.figures import curves, headline
from flows.pages.tables import comparison_rows
from flows.pages.verdict import verdict
from flows.parameters import StudyParameters
from flows.recipes.changes import decided, resolve, with_assignments
from flows.recipes.methods import METHODS
from flows.results import ModelScores
from pairflow.errors import SpecError
from pairflow.spec import TrainingSpec

from ..test_report import model, result_of


def one_call(label: str, *means: float) -> ModelScores:
    """A model's headline with 0, 1, 2, … steps."""
    bare = model(label, label.lower(), *({"num_valid": mean} for mean in means))
    steps = [
        step.model_copy(update={"num_steps": place, "num_network_calls": place + 1})
        for place, step in enumerate(bare.steps)
    ]
    return bare.model_copy(update={"steps": tuple(steps)})


def test_tables_and_sentences(tmp_path: Path) -> None:
    result = result_of(tmp_path, one_call("UDLM", 1, 2, 9), one_call("PairFlow", 4, 5, 6))
    (udlm, _) = comparison_rows(result)
    assert list(udlm)[:4] == ["method", "1 call", "1 step", "2 steps"]
    assert udlm["network calls"] == "1, 2, 3"
    assert verdict(result) == "At 1 call PairFlow 4 against UDLM 1; UDLM ahead at 2 steps"
    named = score_table.by_steps(result.models[0])
    assert list(named) == [f"num_valid.steps_{steps}" for steps in (0, 1, 2)]
    assert score_table.in_words("num_valid", named) == (
        "num_valid by number of sampling steps: none (1 call): 1, 1: 2, 2: 9"
    )


def test_figures_have_a_place_for_it(tmp_path: Path) -> None:
    result = result_of(tmp_path, one_call("UDLM", 1, 2, 9), one_call("PairFlow", 4, 5, 6))
    drawn = headline.draw(result.methods)
    assert ">1 call</text>" in drawn
    assert "<title>PairFlow, 1 call: 4</title>" in drawn
    assert [curves.place_of(steps) for steps in (0, 1, 2)] == [0.5, 1, 2]  # as far apart as 1 and 2 are
    curves.comparison(result.methods, result.costs, "toys", tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 10_000


def test_the_objective_is_a_setting_like_others_and_redi_follows_it() -> None:
    asked = with_assignments(StudyParameters(), {"training.objective": "cross_entropy"})
    preset = resolve(asked)
    assert METHODS["assigned"].training(preset).objective == "cross_entropy"
    refinement = METHODS["udlm+redi"].refinement
    assert refinement is not None
    tuned = refinement.training(preset)
    assert isinstance(tuned, TrainingSpec)
    assert (tuned.objective, tuned.num_steps) == ("cross_entropy", preset.redi_training.num_steps)
    assert refinement.specs(preset)["redi_training"] == tuned
    assert ("training.objective", "cross_entropy", "you") in decided(asked)
    assert ("training.objective", "elbo", "preset") in decided(StudyParameters())
    with pytest.raises(SpecError, match=r"redi_training.objective: got 'mixed', but the method decides it"):
        with_assignments(StudyParameters(), {"redi_training.objective": "mixed"})
