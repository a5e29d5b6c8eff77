"""From data to report by the REST API, with MLflow killed in the middle of training and then the run itself."""

import time
from typing import Any

import pytest
from mlflow import MlflowClient

from .user import User

pytestmark = pytest.mark.timeout(1800)  # of a machine that is very busy

_RUN_VARIABLE = "PREFECT__FLOW_RUN_ID"
_TINY = {
    "dataset": {"name": "nci", "max_rows": 150},
    "coupling": {"num_steps": 5},
    "model": {"architecture": "dit", "hidden_size": 16, "num_layers": 1, "num_heads": 2, "cond_size": 16},
    "training": {"num_steps": 400, "batch_size": 16},
    "evaluation": {"steps": [1, 2], "num_samples": 8, "num_trials": 2},
}


def _stages(user: User, names: str) -> list[Any]:
    """Flow runs whose name begins so, which a search of Prefect's finds anywhere in it ("retrain nci")."""
    found = user.ask("flow_runs/filter", {"flow_runs": {"name": {"like_": names}}, "sort": "START_TIME_ASC"})
    return [each for each in found if each["name"].startswith(names)]


def _artifacts(user: User, flow_run_id: str) -> dict[str, Any]:
    """By the first word of their key, or by their type where they have none."""
    found = user.ask("artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [flow_run_id]}}})
    return {(each["key"] or each["type"] or "").partition("-")[0]: each for each in found}


@pytest.fixture(scope="module")
def pipeline(user: User) -> str:
    """A pipeline that has completed, after MLflow was killed while it trained, and its process while it evaluated."""
    run_id = user.start("pipeline", _TINY)
    user.wait_for(
        lambda: any(_artifacts(user, each["id"]) for each in _stages(user, "train nci")),
        timeout_s=240,
        or_say=lambda: user.flow_run(run_id)["state"],
    )
    user.process("mlflow server").kill()
    user.wait_for(
        lambda: any(each["state_name"] == "Running" for each in _stages(user, "evaluate nci")),
        timeout_s=400,
        or_say=lambda: user.flow_run(run_id)["state"],
    )
    assert [each["state_name"] for each in _stages(user, "train nci")] == ["Completed"] * 3
    user.process("prefect.engine", **{_RUN_VARIABLE: run_id}).kill()
    user.wait_for_state(run_id, "Crashed", timeout_s=60)
    user.wait_for(lambda: not {"RUNNING", "PENDING"} & set(user.jobs().values()), timeout_s=60)
    user.wait_for(lambda: _stages(user, "evaluate nci")[0]["state_name"] == "Crashed", timeout_s=60)
    time.sleep(10)  # Prefect reports a crash twice, and the second report would undo an earlier retry
    user.set_state(run_id, "SCHEDULED", "AwaitingRetry")
    run = user.wait_for_state(run_id, "Completed", "Failed", "Crashed", timeout_s=400)
    assert run["state_name"] == "Completed", run["state"]
    return run_id


def test_the_page_of_a_pipeline(user: User, pipeline: str) -> None:
    run = user.flow_run(pipeline)
    assert run["name"] == "pipeline nci demo"
    assert {"pairflow", "pipeline", "nci", "demo"} <= set(run["tags"])
    artifacts = _artifacts(user, pipeline)
    assert {"scores", "pictures", "summary"} <= set(artifacts)
    summary = artifacts["summary"]["data"]
    # The comparison, two kinds of pairs, three models, three evaluations.
    assert summary.count(f"({user.mlflow}/#/experiments/") == 9
    assert f"`{user.home}/reports/" in summary
    assert "data:image/png;base64," in artifacts["pictures"]["data"]


def test_the_pages_of_its_stages(user: User, pipeline: str) -> None:
    for name, key in (("pair nci", "pairs"), ("train nci pairflow", "model"), ("evaluate nci", "evaluation")):
        # The first: those of the retry found what it had made.
        stage = next(each for each in _stages(user, name) if each["state_name"] == "Completed")
        artifacts = _artifacts(user, stage["id"])
        assert {key, "progress"} <= set(artifacts) or name == "evaluate nci"
        assert f"({user.ray}/#/jobs/" in artifacts[key]["data"]
        assert f"({user.mlflow}/#/experiments/" in artifacts[key]["data"]
    progress = _artifacts(user, _stages(user, "train nci pairflow")[0]["id"])["progress"]
    assert progress["data"] == 100
    assert "400 of 400 steps" in progress["description"]


def test_its_lineage_is_whole_though_mlflow_was_away(mlflow_client: MlflowClient, pipeline: str) -> None:
    experiment = next(each for each in mlflow_client.search_experiments() if "nci" in each.name)
    runs = mlflow_client.search_runs([experiment.experiment_id])
    trained = [each for each in runs if each.info.run_name.startswith("train nci")]
    finished = [each for each in trained if each.info.status == "FINISHED"]
    assert {each.data.tags["pairflow.method"] for each in finished} == {"udlm", "pairflow", "assigned"}
    for each in finished:
        steps = [point.step for point in mlflow_client.get_metric_history(each.info.run_id, "train_loss")]
        assert steps == sorted(set(steps))
        assert steps[-1] == 400
        assert len(steps) == 200
    assert not [each.info.run_name for each in runs if each.info.status == "RUNNING"]
