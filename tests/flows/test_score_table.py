"""Scores where MLflow can sort them, the addresses of its pages, and what a progress artifact says."""

import json
from pathlib import Path

import pytest
from mlflow import MlflowClient

from flows.cluster.protocol import Progress
from flows.home.settings import Settings
from flows.lineage import page_address, score_table
from flows.lineage.registry import Registry
from flows.lineage.tracking import Lineage
from flows.lineage.writer import RunWriter
from flows.pages.artifacts import bar

from .test_report import model

_SCORED = model("PairFlow", "pairflow", {"mean_hamming": 9, "num_valid": 3}, {"num_valid": 5})


def _columns(view: str) -> list[str]:
    columns: list[str] = json.loads(view)["selectedColumns"]
    return [column for column in columns if column.startswith("metrics")]


def test_a_metric_a_number_of_steps_the_headline_first() -> None:
    found = score_table.by_steps(_SCORED)
    assert list(found.items()) == [("num_valid.steps_1", 3), ("num_valid.steps_2", 5), ("mean_hamming.steps_1", 9)]
    assert score_table.version_tags("num_valid", found) == {
        "pairflow.score.num_valid.steps_1": "3",
        "pairflow.score.num_valid.steps_2": "5",
    }
    assert score_table.in_words("num_valid", found | {"num_valid.steps_16": 7.5}) == (
        "num_valid by number of sampling steps: 1: 3, 2: 5, 16: 7.5"
    )
    assert score_table.in_words("", found) == ""


def test_a_view_keeps_what_was_in_it_in_the_order_of_the_steps() -> None:
    wide = score_table.view(model("UDLM", "udlm", *[{"num_valid": 1}] * 5), None)
    assert _columns(wide) == [f"metrics.`num_valid.steps_{2**place}`" for place in range(5)]
    assert _columns(score_table.view(_SCORED, wide)) == _columns(wide)
    assert _columns(score_table.view(_SCORED, "what somebody typed")) == _columns(score_table.view(_SCORED, None))
    other = wide.replace("num_valid", "fid")
    assert _columns(score_table.view(_SCORED, other)) == [*_columns(score_table.view(_SCORED, None)), *_columns(other)]
    many = score_table.view(model("UDLM", "udlm", *[{"num_valid": 1}] * 60), None)
    long = many.replace("num_valid", "a_score_with_a_name_that_is_as_long_as_names_of_scores_can_be")
    assert len(long) > 5000  # MLflow's limit
    assert len(score_table.view(_SCORED, long)) < 5000


def test_addresses_open_the_machine_learning_view() -> None:
    assert (
        page_address.run("r", "1", pages="http://m") == "http://m/#/experiments/1/runs/r?workflowType=machine_learning"
    )
    assert page_address.run("r", "1") == "#/experiments/1/runs/r?workflowType=machine_learning"
    assert page_address.run("r", "", pages="http://m") == "http://m/#/runs/r"
    table = page_address.experiment("1", pages="http://m")
    assert table == "http://m/#/experiments/1/runs?workflowType=machine_learning&viewStateShareKey=pairflow"


@pytest.mark.parametrize(("done", "drawn"), [(0, "░" * 20), (1, "█" * 5 + "░" * 15), (4, "█" * 20)])
def test_progress_is_a_bar(done: int, drawn: str) -> None:
    shown = bar(Progress(description="pair nci", done=done, total=4, unit="rows"))
    assert shown == f"`{drawn}` {25 * done}%\n\npair nci: {done} of 4 rows"


@pytest.fixture
def lineage(tmp_path: Path) -> Lineage:
    return Lineage(Settings(home=tmp_path / "home"))


def test_scores_reach_training_model_and_its_versions(lineage: Lineage, monkeypatch: pytest.MonkeyPatch) -> None:
    client: MlflowClient = lineage.client
    experiment_id = lineage.experiment("nci")
    training, evaluation, deleted = (client.create_run(experiment_id).info.run_id for _ in range(3))
    client.delete_run(deleted)
    logged = client.create_logged_model(experiment_id, name="nci-pairflow", source_run_id=training)
    monkeypatch.setattr("flows.lineage.trial.sample_once", lambda model_id, uri: None)
    registry = Registry(lineage)
    before = registry.register("nci", logged.model_id, description="", tags={})
    assert before.tags == {}
    scored = _SCORED.model_copy(update={"mlflow_run_id": evaluation, "mlflow_model_id": logged.model_id})
    for training_run in (training, deleted, None):
        score_table.note(lineage, scored, training_run)
    assert client.get_run(training).data.metrics == score_table.by_steps(_SCORED)
    assert client.get_run(deleted).data.metrics == {}
    assert registry.at(before.name, "1").tags == score_table.version_tags("num_valid", score_table.by_steps(_SCORED))


def test_a_version_registered_later_has_the_scores(lineage: Lineage, monkeypatch: pytest.MonkeyPatch) -> None:
    client: MlflowClient = lineage.client
    experiment_id = lineage.experiment("nci")
    run_id = client.create_run(experiment_id).info.run_id
    logged = client.create_logged_model(experiment_id, name="nci-pairflow", source_run_id=run_id)
    for name, value in score_table.by_steps(_SCORED).items():
        client.log_metric(run_id, name, value, model_id=logged.model_id)
    score_table.note(
        lineage, _SCORED.model_copy(update={"mlflow_run_id": run_id, "mlflow_model_id": logged.model_id}), None
    )
    monkeypatch.setattr("flows.lineage.trial.sample_once", lambda model_id, uri: None)
    registry = Registry(lineage)
    version = registry.register("nci", logged.model_id, description="", tags={})
    assert version.tags == score_table.version_tags("num_valid", score_table.by_steps(_SCORED))
    said = registry.with_scores("By hand.", logged.model_id)
    assert said == "By hand.\n\nnum_valid by number of sampling steps: 1: 3, 2: 5\n"


def test_pictures_that_are_sent_twice_are_there_once(lineage: Lineage, tmp_path: Path) -> None:
    picture = tmp_path / "samples+step+1+timestamp+1+samples-1.png"
    picture.write_bytes(b"1")
    writer = RunWriter(lineage.client, lambda name: (tmp_path / name).as_uri())
    begin = {"do": "begin", "dataset": "nci", "stage": "train", "fingerprint": "f", "name": "n", "started": 0}
    files = {"do": "files", "paths": [str(picture), str(tmp_path / "gone.png")], "folder": "images"}
    writer.deliver([{**begin, "tags": {"pairflow.stage": "train"}, "params": {}}, files, files])
    assert [each.path for each in lineage.client.list_artifacts(writer.run_id, "images")] == [f"images/{picture.name}"]
