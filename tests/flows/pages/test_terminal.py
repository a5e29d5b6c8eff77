"""What the terminal shows of an evaluation."""

import pytest

from flows.pages import terminal
from flows.results import EvaluateResult, over_seeds

from ..scores import costs_of_all, model_scores


def test_table_has_both_models_by_steps(capsys: pytest.CaptureFixture[str]) -> None:
    models = (model_scores("udlm", 3), model_scores("pairflow+dcd", 7))
    result = EvaluateResult(
        fingerprint="f",
        models=models,
        methods=over_seeds(models),
        costs=costs_of_all(),
        table="t.json",
        figure="f.png",
        grid="g.png",
        trajectories="t.png",
        report="r.html",
        report_address="file:///r.html",
        skipped=False,
        seconds=1,
    )
    terminal.scores(result)
    said = capsys.readouterr().out
    assert "valid molecules of 64 samples by number of sampling steps (higher is better)" in " ".join(said.split())
    for shown in ("UDLM", "PairFlow + DCD", "12 ± 0.5", "28 ± 0.5", "f.png", "g.png", "2, 3, 5", "30 ± 2"):
        assert shown in said
