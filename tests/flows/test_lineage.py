"""`pairflow lineage` on the tiny pipeline: every link, from every kind of reference, and what is broken by its name."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from mlflow import MlflowClient
from typer.testing import CliRunner

import storage
from flows.cli import app
from flows.lineage import Lineage
from flows.lineage.registry import Registry
from flows.settings import Settings

from .conftest import Cli

# MLflow's own, of a SQLAlchemy that is newer than it.
pytestmark = pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning")

Document = dict[str, Any]
_NAME = "pairflow-a-name-of-its-own"


@pytest.fixture(scope="module")
def client(home: Path, pipeline_result: Document) -> MlflowClient:
    return MlflowClient(f"sqlite:///{home}/mlflow/mlflow.db")


@pytest.fixture(autouse=True)
def _environment(bare_environment: dict[str, str]) -> Iterator[None]:
    """A newcomer's, with this home; the command sets it up for itself in this process, which must not stay so."""
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(bare_environment | {"COLUMNS": "300"})
    yield
    os.environ.clear()
    os.environ.update(before)


def _run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["lineage", *arguments])


def _document(reference: str, code: int = 0) -> Document:
    done = _run(reference, "--json")
    assert done.exit_code == code, (done.stdout, done.stderr, done.exception)
    document: Document = json.loads(done.stdout)
    assert document["ref"] == reference
    assert document["ok"] == (code == 0)
    return document


def _faults(reference: str) -> dict[str, str]:
    """Node id -> what is wrong with it; the command says the same on standard error, with exit code 1."""
    document = _document(reference, code=1)
    assert document["broken"]
    done = _run(reference)
    assert done.exit_code == 1
    for each in document["broken"]:
        assert f"({each['id']}): {each['fault']}" in done.stderr
    return {each["id"]: each["fault"] for each in document["broken"]}


def _links(result: Document) -> set[tuple[str, str]]:
    """What came from what, by what the pipeline handed back."""
    pairs = result["pairs"]
    data, pairing = f"dataset:{pairs['dataset_digest']}", f"run:{pairs['mlflow_run_id']}"
    links = {(data, pairing), (pairing, f"pairs:{pairs['fingerprint']}")}
    for trained, scored in zip(result["trainings"], result["evaluation"]["models"], strict=True):
        training, model = f"run:{trained['mlflow_run_id']}", f"model:{trained['mlflow_model_id']}"
        evaluation = f"run:{scored['mlflow_run_id']}"
        links |= {(data, training), (training, model), (model, evaluation)}
        links |= {(evaluation, f"run:{result['mlflow_run_id']}")}
        if trained["method"] == "pairflow":
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


def _paired(result: Document) -> tuple[Document, Document]:
    """Training and evaluation of the paired model."""
    return next(
        (trained, scored)
        for trained, scored in zip(result["trainings"], result["evaluation"]["models"], strict=True)
        if trained["method"] == "pairflow"
    )


@pytest.fixture
def version(client: MlflowClient, pipeline_result: Document, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The paired model, registered as `pairflow register` and `retrain` do, with an alias of its own."""
    monkeypatch.setattr("flows.lineage.trial.sample_once", lambda *_: None)  # test_registry.py is about that
    trained = _paired(pipeline_result)[0]
    registry = Registry(Lineage(Settings.read()))
    made = registry.register(_NAME.removeprefix("pairflow-"), trained["mlflow_model_id"], description="", tags={})
    client.set_registered_model_alias(made.name, "traced", str(made.number))
    yield str(made.number)
    client.delete_registered_model(made.name)


def test_every_reference_leads_to_the_same_chain(pipeline_result: Document) -> None:
    pairs, (trained, scored) = pipeline_result["pairs"], _paired(pipeline_result)
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
        document = _document(reference)
        assert document["starts"] == [start]
        links = {(each["from"], each["to"]) for each in document["links"]}
        assert links == _around(_links(pipeline_result), start)
        assert {node["id"] for node in document["nodes"]} == {end for link in links for end in link}


def test_dataset_by_name_and_registered_model(pipeline_result: Document, version: str) -> None:
    """A dataset's name stands for all that was made of it, other tests' data of that name too."""
    trained, _ = _paired(pipeline_result)
    document = _document("nci")
    assert f"dataset:{pipeline_result['pairs']['dataset_digest']}" in document["starts"]
    links = {(each["from"], each["to"]) for each in document["links"]}
    assert links >= _links(pipeline_result)
    node = f"version:{_NAME}/{version}"
    assert (f"model:{trained['mlflow_model_id']}", node) in links
    for reference in (f"{_NAME}@traced", f"models:/{_NAME}@traced", f"{_NAME}/{version}"):
        document = _document(reference)
        assert document["starts"] == [node]
        (found,) = [each for each in document["nodes"] if each["id"] == node]
        assert found["facts"]["aliases"] == ["traced"]


def test_facts_agree_with_mlflow(client: MlflowClient, pipeline_result: Document) -> None:
    trained, _ = _paired(pipeline_result)
    run = client.get_run(trained["mlflow_run_id"])
    nodes = {each["id"]: each for each in _document(trained["mlflow_model_id"])["nodes"]}
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


def test_pages_say_where_a_run_belongs(client: MlflowClient, pipeline_result: Document) -> None:
    trained, scored = _paired(pipeline_result)
    parent_id = pipeline_result["mlflow_run_id"]
    note = client.get_run(trained["mlflow_run_id"]).data.tags["mlflow.note.content"]
    assert f"(#/runs/{parent_id})" in note
    assert f"(#/runs/{pipeline_result['pairs']['mlflow_run_id']})" in note
    assert "[flow run](http://127.0.0.1:" in note
    assert "/#/jobs/train-" in note
    assert "pairflow train \\\n    --dataset nci \\\n    --max-rows 150 \\\n" in note
    assert "a ratio of" in note
    parent = client.get_run(parent_id)
    page = parent.data.tags["mlflow.note.content"]
    assert page.startswith("**")
    assert "| method | 1 | 2 | network calls |" in page
    for run_id in (trained["mlflow_run_id"], scored["mlflow_run_id"], pipeline_result["pairs"]["mlflow_run_id"]):
        assert f"(#/runs/{run_id})" in page
    assert "pairflow pipeline \\\n    --dataset nci" in page
    used = {tag.value for each in parent.inputs.dataset_inputs for tag in each.tags if tag.key == "pairflow.digest"}
    assert used == {trained["dataset_digest"], trained["pairs_fingerprint"]}


def test_load_and_speed_are_there(client: MlflowClient, pipeline_result: Document) -> None:
    trained, scored = _paired(pipeline_result)
    pairing = pipeline_result["pairs"]["mlflow_run_id"]
    for run_id in (pairing, trained["mlflow_run_id"], scored["mlflow_run_id"]):
        metrics = client.get_run(run_id).data.metrics
        assert 0 < metrics["system/system_memory_usage_percentage"] < 100
        assert "system/cpu_utilization_percentage" in metrics
    speeds = client.get_metric_history(pairing, "live_rows_per_second")
    assert speeds[0].value > 0
    assert speeds[-1].step <= pipeline_result["pairs"]["rows"]


@pytest.mark.parametrize("whose", ["pairing", "training", "comparison"])
def test_deleted_run_is_named(client: MlflowClient, pipeline_result: Document, whose: str) -> None:
    trained, _ = _paired(pipeline_result)
    run_id = {
        "pairing": pipeline_result["pairs"]["mlflow_run_id"],
        "training": trained["mlflow_run_id"],
        "comparison": pipeline_result["mlflow_run_id"],
    }[whose]
    client.delete_run(run_id)
    try:
        for reference in (trained["mlflow_model_id"], trained["dataset_digest"]):
            assert _faults(reference) == {f"run:{run_id}": "somebody deleted this run in MLflow"}
    finally:
        client.restore_run(run_id)
    _document(trained["mlflow_model_id"])


def test_run_that_mlflow_lacks_is_named(client: MlflowClient, pipeline_result: Document) -> None:
    trained, scored = _paired(pipeline_result)
    lost = "0123456789abcdef" * 2
    client.set_tag(scored["mlflow_run_id"], "pairflow.training_run", lost)
    client.set_tag(scored["mlflow_run_id"], "mlflow.parentRunId", lost)
    try:
        assert _faults(trained["mlflow_model_id"]) == {f"run:{lost}": "MLflow has no such run"}
    finally:
        client.set_tag(scored["mlflow_run_id"], "pairflow.training_run", trained["mlflow_run_id"])
        client.set_tag(scored["mlflow_run_id"], "mlflow.parentRunId", pipeline_result["mlflow_run_id"])


def test_missing_files_are_named(pipeline_result: Document, tmp_path: Path) -> None:
    trained, _ = _paired(pipeline_result)
    url = Path(trained["pairs_url"])
    manifest = storage.open_pairs(str(url)).manifest
    name = manifest.shards[0].objects[0].name
    pairs, run = f"pairs:{trained['pairs_fingerprint']}", f"run:{trained['mlflow_run_id']}"
    away = tmp_path / "away"

    def without(path: Path) -> dict[str, str]:
        path.rename(away)
        try:
            return _faults(trained["mlflow_model_id"])
        finally:
            away.rename(path)

    assert without(url / name) == {pairs: f"shard 0 of {url}: {url / name}: missing"}
    assert without(url)[pairs].startswith(f"there are no pairs at {url}")
    assert without(url / "_manifest.json")[pairs].startswith(
        f"the pairs at {url} are partial, {len(manifest.shards)} of {len(manifest.shards)} shards"
    )
    assert without(Path(trained["checkpoint"])) == {run: f"its checkpoint {trained['checkpoint']} is not there"}
    whole = (url / name).read_bytes()
    (url / name).write_bytes(whole[:-1])
    try:
        assert "bytes, expected" in _faults(trained["mlflow_model_id"])[pairs]
    finally:
        (url / name).write_bytes(whole)
    _document(trained["mlflow_model_id"])


def test_tree_is_for_people(pipeline_result: Document) -> None:
    trained, _ = _paired(pipeline_result)
    done = _run(trained["mlflow_model_id"])
    assert done.exit_code == 0
    up, down = done.stdout.split("came of it")
    assert up.index("train nci pairflow") < up.index("pair nci T20") < up.index("nci/train")
    assert down.index("evaluate nci pairflow") < down.index("pipeline nci demo")


@pytest.mark.parametrize(
    "reference",
    [
        "m-" + "0" * 32,
        "0" * 32,
        "abcdef",
        "f" * 64,
        "pairflow-nci@nobody",
        "pairflow-nosuch/1",
        "models:/a@b@c",
        "x' OR '1'='1",
        "../x",
        "",
        "cifar-10",
        "/nosuch/pairs/" + "0" * 64 + ".zarr",
        "s3://",
        "mdlm",
    ],
)
def test_what_is_not_known_is_said(pipeline_result: Document, reference: str) -> None:
    done = _run(reference, "--json")
    assert done.exit_code == 1
    assert type(done.exception).__name__ == "LineageError"
    assert "expected" in str(done.exception) or "MLflow" in str(done.exception)


def test_several_things_of_one_prefix(client: MlflowClient, pipeline_result: Document) -> None:
    trained, _ = _paired(pipeline_result)
    twin = client.create_run(
        pipeline_result["mlflow_experiment_id"],
        tags={"pairflow.stage": "train", "pairflow.fingerprint": trained["fingerprint"][:20] + "0" * 44},
    )
    try:
        done = _run(trained["fingerprint"][:8])
        assert done.exit_code == 1
        assert "give more digits" in str(done.exception)
    finally:
        client.delete_run(twin.info.run_id)
    assert _document(trained["fingerprint"][:8])["starts"] == [f"model:{trained['mlflow_model_id']}"]


def test_folder_without_a_checkpoint(pipeline_result: Document, tmp_path: Path) -> None:
    assert "no checkpoint in" in str(_run(str(tmp_path)).exception)
    (tmp_path / "state.json").write_text('{"sha256": "' + "a" * 64 + '"}')
    assert "knows no training of the checkpoint" in str(_run(str(tmp_path)).exception)
    (tmp_path / "state.json").write_text("[")
    assert "is damaged" in str(_run(str(tmp_path)).exception)


def test_home_without_history(bare_cli: Cli, tmp_path: Path) -> None:
    done = bare_cli("lineage", "digits", PAIRFLOW_HOME=str(tmp_path))
    assert done.code == 1
    assert "nothing was ever run here" in done.stderr
    assert list(tmp_path.iterdir()) == []
    assert bare_cli("lineage", PAIRFLOW_HOME=str(tmp_path)).code == 2


def test_settings_reach_the_job(home: Path) -> None:
    assert Settings(home=home, mlflow_patience=7).job_environment()["PAIRFLOW_MLFLOW_PATIENCE"] == "7.0"
