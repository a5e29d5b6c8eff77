"""What the terminal shows of an evaluation."""

import shlex
import sys
from pathlib import Path

import pytest

from flows.home.settings import Settings
from flows.pages import places, terminal
from flows.pages.verdict import verdict
from flows.results import ComparisonResult, EvaluateResult, over_seeds

from ..scores import costs_of_all, model_scores


def _evaluation() -> EvaluateResult:
    models = (model_scores("udlm", 3), model_scores("pairflow+dcd", 7))
    return EvaluateResult(
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


def test_table_has_both_models_by_steps(capsys: pytest.CaptureFixture[str]) -> None:
    result = _evaluation()
    terminal.scores(result)
    said = capsys.readouterr().out
    assert "valid molecules of 64 samples by number of sampling steps (higher is better)" in " ".join(said.split())
    for shown in ("UDLM", "PairFlow + DCD", "12 ± 0.5", "28 ± 0.5", "f.png", "g.png", "2, 3, 5", "30 ± 2"):
        assert shown in said


def test_a_comparison_ends_with_what_leads_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.chdir(tmp_path)
    settings = Settings(home=tmp_path / "my home", mlflow_uri=None, prefect_port=4321, mlflow_port=5432, ray_port=8888)
    evaluation = _evaluation()
    result = ComparisonResult(
        pairs=None,
        redi_pairs=(),
        trainings=(),
        distillations=(),
        evaluation=evaluation,
        mlflow_run_id="abc",
        mlflow_experiment_id="7",
        prefect_run_id="def",
    )
    terminal.report(result, settings)
    said = capsys.readouterr().out.splitlines()
    after = said[said.index(f"{verdict(evaluation)}.") :]
    assert after[2] == "figure  f.png"
    (command,) = (shlex.split(line) for line in after if line.endswith(" up"))
    assert command == ["PAIRFLOW_HOME=my home", str(Path(sys.executable).with_name("pairflow")), "up"]
    pages = [line.strip() for line in after if line.strip().startswith("http")]
    assert [page.split("?")[0] for page in pages] == [
        "http://127.0.0.1:4321/runs/flow-run/def",
        "http://127.0.0.1:5432/#/experiments/7/runs",
        "http://127.0.0.1:8888",
    ]
    assert "`pairflow token`" in after[-1]


def test_paths_are_said_from_where_the_user_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert places.short(str(tmp_path / "a" / "b")) == "a/b"
    assert places.short("/elsewhere/b") == "/elsewhere/b"
    assert places.short("s3://bucket/b") == "s3://bucket/b"
