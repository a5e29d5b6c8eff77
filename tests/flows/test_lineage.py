"""`pairflow lineage` on the tiny pipeline: every link, from every kind of reference, and what is broken by its name."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

import storage
from flows.home.environment import job_environment
from flows.home.settings import Settings
from flows.lineage.registry import Registry
from flows.lineage.tracking import Lineage

from .lineage_command import Document, document_of, paired, run_lineage

pytestmark = pytest.mark.usefixtures("in_this_process")

_NAME = "pairflow-a-name-of-its-own"


def _links(result: Document) -> set[tuple[str, str]]:
    """What came from what, by what the pipeline handed back."""
    (assigned,) = result["other_pairs"]
    of_method = {"pairflow": result["pairs"], "assigned": assigned}
    data = f"dataset:{assigned['dataset_digest']}"
    links = set()
    for pairs in of_method.values():
        pairing = f"run:{pairs['mlflow_run_id']}"
        links |= {(data, pairing), (pairing, f"pairs:{pairs['fingerprint']}")}
    for trained, scored in zip(result["trainings"], result["evaluation"]["models"], strict=True):
        training, model = f"run:{trained['mlflow_run_id']}", f"model:{trained['mlflow_model_id']}"
        evaluation = f"run:{scored['mlflow_run_id']}"
        links |= {(data, training), (training, model), (model, evaluation)}
        links |= {(evaluation, f"run:{result['mlflow_run_id']}")}
        if (pairs := of_method.get(trained["method"])) is not None:
            links.add((f"pairs:{pairs['fingerprint']}", training))
    return links


def _around(links: set[tuple[str, str]], start: str) -> set[tuple[str, str]]:
    """The links on the ways to and from a node, by going over all of them until nothing is added."""
    before, after = {start}, {start}
    for _ in links:
        before |= {source for source, target in links if target in before}
        after |= {target for source, target in links if source in after}
    kept = before | after
    return {link for link in links if set(link) <= kept}


@pytest.fixture
def version(history: MlflowClient, pipeline_result: Document, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The paired model, registered as `pairflow register` and `retrain` do, with an alias of its own."""
    monkeypatch.setattr("flows.lineage.trial.sample_once", lambda *_: None)  # test_registry.py is about that
    trained = paired(pipeline_result)[0]
    registry = Registry(Lineage(Settings.read()))
    made = registry.register(_NAME.removeprefix("pairflow-"), trained["mlflow_model_id"], description="", tags={})
    history.set_registered_model_alias(made.name, "traced", str(made.number))
    yield str(made.number)
    history.delete_registered_model(made.name)


def test_every_reference_leads_to_the_same_chain(pipeline_result: Document) -> None:
    pairs, (trained, scored) = pipeline_result["pairs"], paired(pipeline_result)
    model = f"model:{trained['mlflow_model_id']}"
    references = {
        trained["mlflow_model_id"]: model,
        f"models:/{trained['mlflow_model_id']}": model,
        trained["fingerprint"]: model,
        trained["checkpoint"]: model,
        str(Path(trained["checkpoint"]).parents[1]): model,
        trained["mlflow_run_id"]: f"run:{trained['mlflow_run_id']}",
        scored["mlflow_run_id"]: f"run:{scored['mlflow_run_id']}",
        pipeline_result["mlflow_run_id"]: f"run:{pipeline_result['mlflow_run_id']}",
        pairs["url"]: f"pairs:{pairs['fingerprint']}",
        pairs["fingerprint"]: f"pairs:{pairs['fingerprint']}",
        pairs["fingerprint"][:12]: f"pairs:{pairs['fingerprint']}",
        pairs["dataset_digest"]: f"dataset:{pairs['dataset_digest']}",
    }
    for reference, start in references.items():
        document = document_of(reference)
        assert document["starts"] == [start]
        links = {(each["from"], each["to"]) for each in document["links"]}
        ours = _links(pipeline_result)
        assert links >= _around(ours, start)
        known = {end for link in ours for end in link}
        later = links - ours  # other tests of this home compare the same model again; what it came from stays
        assert not {target for _, target in later} & known, later
        assert links - later == _around(ours, start)
        assert {node["id"] for node in document["nodes"]} == {end for link in links for end in link}


def test_dataset_by_name_and_registered_model(pipeline_result: Document, version: str) -> None:
    """A dataset's name stands for all that was made of it, other tests' data of that name too."""
    trained, _ = paired(pipeline_result)
    document = document_of("nci", code=None)
    assert f"dataset:{pipeline_result['pairs']['dataset_digest']}" in document["starts"]
    links = {(each["from"], each["to"]) for each in document["links"]}
    assert links >= _links(pipeline_result)
    node = f"version:{_NAME}/{version}"
    assert (f"model:{trained['mlflow_model_id']}", node) in links
    for reference in (f"{_NAME}@traced", f"models:/{_NAME}@traced", f"{_NAME}/{version}"):
        document = document_of(reference)
        assert document["starts"] == [node]
        (found,) = [each for each in document["nodes"] if each["id"] == node]
        assert found["facts"]["aliases"] == ["traced"]


def test_facts_agree_with_mlflow(history: MlflowClient, pipeline_result: Document) -> None:
    trained, _ = paired(pipeline_result)
    run = history.get_run(trained["mlflow_run_id"])
    nodes = {each["id"]: each for each in document_of(trained["mlflow_model_id"])["nodes"]}
    facts = nodes[f"run:{trained['mlflow_run_id']}"]["facts"]
    tags = run.data.tags
    for name in ("prefect_run_url", "ray_submission_id", "machine.host", "machine.cpu", "machine.used", "version"):
        assert facts[name] == tags[f"pairflow.{name}"]
    assert facts["seconds"] == (run.info.end_time - run.info.start_time) / 1000
    assert facts["checkpoint"] == trained["checkpoint"]
    assert facts["metrics"]["pairing_to_training_seconds"] == pytest.approx(
        trained["pairing_seconds"] / trained["training_seconds"]
    )
    data = nodes[f"dataset:{trained['dataset_digest']}"]["facts"]
    report = storage.open_pairs(trained["pairs_url"]).manifest.dataset
    assert (data["source"], data["rows_kept"]) == (report["source"], report["rows_kept"])
    assert sum(data["dropped"].values()) == data["rows_read"] - data["rows_kept"]


def test_pages_say_where_a_run_belongs(history: MlflowClient, pipeline_result: Document) -> None:
    trained, scored = paired(pipeline_result)
    parent_id = pipeline_result["mlflow_run_id"]
    note = history.get_run(trained["mlflow_run_id"]).data.tags["mlflow.note.content"]
    assert f"/runs/{parent_id}?workflowType=machine_learning)" in note
    assert f"/runs/{pipeline_result['pairs']['mlflow_run_id']}?workflowType=machine_learning)" in note
    assert "[flow run](http://127.0.0.1:" in note
    assert "/#/jobs/train-" in note
    assert "pairflow train \\\n    --dataset nci \\\n    --max-rows 150 \\\n" in note
    assert "a ratio of" in note
    parent = history.get_run(parent_id)
    page = parent.data.tags["mlflow.note.content"]
    assert page.startswith("**At 1 step ")
    assert "| method | 1 step | 2 steps | network calls |" in page
    for run_id in (trained["mlflow_run_id"], scored["mlflow_run_id"], pipeline_result["pairs"]["mlflow_run_id"]):
        assert f"/runs/{run_id}?workflowType=machine_learning)" in page
    assert "pairflow pipeline \\\n    --dataset nci" in page
    used = {tag.value for each in parent.inputs.dataset_inputs for tag in each.tags if tag.key == "pairflow.digest"}
    (assigned,) = pipeline_result["other_pairs"]
    assert used == {trained["dataset_digest"], trained["pairs_fingerprint"], assigned["fingerprint"]}


def test_load_and_speed_are_there(history: MlflowClient, pipeline_result: Document) -> None:
    trained, scored = paired(pipeline_result)
    pairing = pipeline_result["pairs"]["mlflow_run_id"]
    for run_id in (pairing, trained["mlflow_run_id"], scored["mlflow_run_id"]):
        metrics = history.get_run(run_id).data.metrics
        assert 0 < metrics["system/system_memory_usage_percentage"] < 100
        assert "system/cpu_utilization_percentage" in metrics
    speeds = history.get_metric_history(pairing, "live_rows_per_second")
    assert speeds[0].value > 0
    assert speeds[-1].step <= pipeline_result["pairs"]["rows"]


def test_tree_is_for_people(pipeline_result: Document) -> None:
    trained, _ = paired(pipeline_result)
    done = run_lineage(trained["mlflow_model_id"])
    assert done.exit_code == 0
    up, down = done.stdout.split("came of it")
    assert up.index("train nci pairflow") < up.index("pair nci T20") < up.index("nci/train")
    assert down.index("evaluate nci pairflow") < down.index("pipeline nci demo")


def test_settings_reach_the_job(home: Path) -> None:
    assert job_environment(Settings(home=home, mlflow_patience=7))["PAIRFLOW_MLFLOW_PATIENCE"] == "7.0"
