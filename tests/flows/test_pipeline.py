"""`pairflow pipeline` at a tiny size: every link from the data to the scores is in MLflow, and a rerun adds nothing."""

import json
import math
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from safetensors.torch import load_file

import storage
from flows.evaluate import message
from flows.results import EvaluateResult

from .conftest import PIPELINE, Cli


@pytest.fixture(scope="module")
def result(pipeline_result: dict[str, Any]) -> dict[str, Any]:
    return pipeline_result


@pytest.fixture(scope="module")
def client(home: Path, result: dict[str, Any]) -> MlflowClient:
    return MlflowClient(f"sqlite:///{home}/mlflow/mlflow.db")


_LOSSES = ("loss/training", "train_loss")


def _digests(run: Run) -> dict[str, str]:
    """Role -> full digest of what a run used."""
    found = {}
    for each in run.inputs.dataset_inputs:
        tags = {tag.key: tag.value for tag in each.tags}
        assert tags["pairflow.digest"].startswith(each.dataset.digest)
        found[tags["mlflow.data.context"]] = tags["pairflow.digest"]
    return found


def _weights(checkpoint: str) -> int:
    """How many numbers the optimiser has a running mean for."""
    (file,) = Path(checkpoint).glob("*.safetensors")
    tensors = load_file(file)
    return sum(each.numel() for name, each in tensors.items() if name.startswith("optimizer.exp_avg."))


def test_chain_from_data_to_scores(client: MlflowClient, result: dict[str, Any]) -> None:
    pairs, evaluation = result["pairs"], result["evaluation"]
    (assigned,) = result["other_pairs"]
    manifest = storage.open_pairs(pairs["url"]).manifest
    assert manifest.dataset["digest"] == pairs["dataset_digest"]
    pairing = client.get_run(pairs["mlflow_run_id"])
    assert _digests(pairing) == {"coupling": pairs["dataset_digest"]}
    assert pairing.data.tags["pairflow.pairs_fingerprint"] == manifest.fingerprint
    assert pairing.data.metrics["rows"] == manifest.num_rows

    for training, scores in zip(result["trainings"], evaluation["models"], strict=True):
        trained = client.get_run(training["mlflow_run_id"])
        expected = {"training": pairs["dataset_digest"]}
        if training["method"] == "pairflow":
            expected["pairs"] = manifest.fingerprint
        if training["method"] == "assigned":
            expected["pairs"] = assigned["fingerprint"]
        assert _digests(trained) == expected
        assert trained.data.params["training.num_steps"] == "6"
        coupling = {"udlm": "independent", "pairflow": "paired", "assigned": "paired"}[training["method"]]
        assert trained.data.params["training.coupling"] == coupling
        assert trained.data.tags["pairflow.method"] == training["method"]
        assert [each.step for each in client.get_metric_history(trained.info.run_id, "train_loss")] == list(range(1, 7))
        nats, bits = (trained.data.metrics[f"validation_{unit}"] for unit in ("nll", "bits_per_token"))
        assert bits == pytest.approx(nats / math.log(2))
        assert [each.model_id for each in trained.outputs.model_outputs] == [training["mlflow_model_id"]]

        model = client.get_logged_model(training["mlflow_model_id"])
        assert f'load_model("models:/{model.model_id}")' in model.tags["mlflow.note.content"]
        page = f"#/experiments/{trained.info.experiment_id}/runs/{trained.info.run_id}?workflowType=machine_learning"
        assert f"({page})" in model.tags["mlflow.note.content"]
        assert model.source_run_id == trained.info.run_id
        assert model.status == "READY"
        assert int(model.params["num_parameters"]) == training["num_parameters"] == _weights(training["checkpoint"])
        files = {each.path for each in client.list_logged_model_artifacts(model.model_id)}
        assert {"MLmodel", "requirements.txt", "model_code.py", "code", "artifacts"} <= files

        evaluated = client.get_run(scores["mlflow_run_id"])
        assert [each.model_id for each in evaluated.inputs.model_inputs] == [model.model_id]
        assert evaluated.data.tags["pairflow.training_run"] == trained.info.run_id
        headline = scores["headline"]["name"]
        history = {each.step: each.value for each in client.get_metric_history(evaluated.info.run_id, headline)}
        assert history == {
            step["num_steps"]: pytest.approx(step["scores"][headline]["mean"]) for step in scores["steps"]
        }
        expected = {
            f"{name}.steps_{step['num_steps']}": pytest.approx(score["mean"])
            for step in scores["steps"]
            for name, score in step["scores"].items()
        }
        for figures in (evaluated.data.metrics, trained.data.metrics):
            assert {name: value for name, value in figures.items() if ".steps_" in name} == expected
        of_model = {each.key: each.value for each in model.metrics}
        assert {name: value for name, value in of_model.items() if ".steps_" in name} == expected
        for run in (trained, evaluated):
            chosen = {name: run.data.params.get(name) for name in ("method", "preset", "dataset", "seed")}
            assert chosen == {"method": training["method"], "preset": "demo", "dataset": "nci", "seed": "0"}


def test_the_table_of_the_experiment_has_the_scores_as_columns(client: MlflowClient, result: dict[str, Any]) -> None:
    experiment = client.get_experiment(result["mlflow_experiment_id"])
    view = json.loads(experiment.tags["mlflow.sharedViewState.pairflow"])
    assert view["selectedColumns"] == [
        *("params.`method`", "params.`preset`", "params.`seed`"),
        *("metrics.`num_unique.steps_1`", "metrics.`num_unique.steps_2`"),
    ]
    assert (view["orderByKey"], view["orderByAsc"]) == ("metrics.`num_unique.steps_1`", False)
    rows = client.search_runs([experiment.experiment_id], view["searchFilter"])
    assert {run.data.tags["pairflow.stage"] for run in rows} == {"evaluate"}  # other tests' among them
    assert {run.info.run_id for run in rows} >= {each["mlflow_run_id"] for each in result["evaluation"]["models"]}
    assert "viewStateShareKey=pairflow)" in experiment.tags["mlflow.note.content"]


def test_a_training_shows_its_loss_first_and_what_it_draws(client: MlflowClient, result: dict[str, Any]) -> None:
    for training in result["trainings"]:
        run = client.get_run(training["mlflow_run_id"])
        losses = [[each.value for each in client.get_metric_history(run.info.run_id, name)] for name in _LOSSES]
        assert losses[0] == losses[1]
        assert len(losses[0]) == 6
        assert {"settings.json", "samples.png", "images"} <= {
            each.path for each in client.list_artifacts(run.info.run_id)
        }
        names = [Path(each.path).name for each in client.list_artifacts(run.info.run_id, "images")]
        pictures = [name.split("+") for name in names if name.endswith(".png")]
        assert {key for key, *_ in pictures} == {"samples"}
        assert {int(step) for _, _, step, *_ in pictures} >= {6}  # and what was drawn on the way
        assert len(pictures) > 1
        assert sorted(name.replace("+compressed.webp", ".png") for name in names if name.endswith(".webp")) == sorted(
            name for name in names if name.endswith(".png")
        )
        assert run.data.tags["mlflow.loggedImages"] == "True"


def test_runs_are_nested_and_say_where_they_come_from(
    client: MlflowClient, prefect_url: str, result: dict[str, Any]
) -> None:
    parent = client.get_run(result["mlflow_run_id"])
    children = [result["pairs"], *result["trainings"], *result["evaluation"]["models"]]
    for child in children:
        run = client.get_run(child["mlflow_run_id"])
        assert run.info.status == "FINISHED"
        if (parent_id := run.data.tags["mlflow.parentRunId"]) != parent.info.run_id:
            assert child["skipped"]  # the tests of `study`, which want the same, came before
            assert client.get_run(parent_id).data.tags["pairflow.stage"] == "study"
        assert run.data.tags["pairflow.prefect_run_url"].startswith("http://127.0.0.1:")
        assert run.data.tags["pairflow.ray_submission_id"]
        assert json.loads(run.data.tags["pairflow.spec"])["dataset"]["name"] == "nci"
    assert parent.info.status == "FINISHED"
    # Of the last that asked for the same: other tests do.
    with urllib.request.urlopen(  # noqa: S310 - http
        f"{prefect_url}/flow_runs/{parent.data.tags['pairflow.prefect_run_id']}", timeout=30
    ) as response:
        assert json.load(response)["name"] == "pipeline nci demo"
    shown = {"comparison.png", "samples.png", "trajectories.png", "report.html"}
    assert {each.path for each in client.list_artifacts(parent.info.run_id)} == shown


def test_pictures_and_table(result: dict[str, Any]) -> None:
    evaluation = result["evaluation"]
    for name in ("figure", "grid", "trajectories"):
        assert Path(evaluation[name]).read_bytes().startswith(b"\x89PNG")
    assert Path(evaluation["report"]).read_text().startswith("<!DOCTYPE html>")
    assert evaluation["report_address"] == Path(evaluation["report"]).as_uri()  # no MLflow server shows it
    of_udlm, of_pairflow, _ = (model["facts"] for model in evaluation["models"])
    assert of_pairflow["pairs_mean_hamming"] == pytest.approx(result["pairs"]["mean_hamming"])
    assert of_pairflow["pairs_keep_rate"] == pytest.approx(result["pairs"]["keep_rate"])
    assert "pairs_mean_hamming" not in of_udlm
    for model in evaluation["models"]:
        for step in model["steps"]:
            assert 0 < step["scores"]["straightness"]["mean"] <= 1
            assert 0 < step["scores"]["mean_hamming"]["mean"] <= 64
    assert json.loads(Path(evaluation["table"]).read_text())["models"] == evaluation["models"]
    assert [model["method"] for model in evaluation["models"]] == ["udlm", "pairflow", "assigned"]


def test_prefect_shows_the_stages(prefect_url: str, result: dict[str, Any]) -> None:
    def post(path: str, body: dict[str, Any]) -> Any:
        request = urllib.request.Request(  # noqa: S310 - http
            f"{prefect_url}/{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310 - http
            return json.load(response)

    chosen = {"parent_flow_run_id": {"any_": [result["prefect_run_id"]]}}
    runs = post("flow_runs/filter", {"flow_runs": chosen, "sort": "START_TIME_ASC"})
    first, second, *trainings, last = (run["name"] for run in runs)
    rows = result["pairs"]["rows"]
    assert (first, last) == (f"pair nci T20 · {rows} rows", "evaluate nci 3 methods")
    assert second.startswith("pair nci assignment ")
    assert sorted(trainings) == ["train nci assigned", "train nci pairflow", "train nci udlm"]  # they start together
    assert {run["state"]["type"] for run in runs} == {"COMPLETED"}
    identifiers = {"flow_run_id": {"any_": [run["id"] for run in runs]}}
    artifacts = post("artifacts/filter", {"artifacts": identifiers})
    assert {artifact["type"] for artifact in artifacts} == {"markdown", "table", "progress"}
    (report,) = (artifact["data"] for artifact in artifacts if (artifact["key"] or "").startswith("report-"))
    assert report == f"[Report of nci]({result['evaluation']['report_address']})"
    said = {run["name"]: run["state"]["message"] for run in runs}
    assert said[last] == message(EvaluateResult.model_validate(result["evaluation"]))
    assert said[last].startswith("At 1 step ")
    assert said[last].endswith(f"· report {result['evaluation']['report_address']}")
    assert said[first].startswith(f"{rows} pairs, ")
    assert all(" nats a token after 6 steps, " in said[name] for name in trainings)


def test_rerun_does_nothing_and_says_so(cli: Cli, client: MlflowClient, result: dict[str, Any]) -> None:
    experiment = result["mlflow_experiment_id"]
    before = {run.info.run_id for run in client.search_runs([experiment])}
    done = cli(*PIPELINE)
    assert done.code == 0, done.stderr
    again = json.loads(done.last_line)
    assert again["pairs"]["skipped"]
    assert all(each["skipped"] for each in again["trainings"])
    assert again["evaluation"]["skipped"]
    assert again["evaluation"]["models"] == result["evaluation"]["models"]
    assert again["mlflow_run_id"] == result["mlflow_run_id"]
    assert {run.info.run_id for run in client.search_runs([experiment])} == before
    assert done.stderr.count("nothing to do") >= 4
