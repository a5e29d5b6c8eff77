"""What `pairflow lineage` says where a link is broken, or where there is nothing to trace."""

from pathlib import Path

import pytest
from mlflow import MlflowClient

import storage

from .conftest import Cli
from .lineage_command import Document, document_of, paired, run_lineage

pytestmark = pytest.mark.usefixtures("in_this_process")


def _faults(reference: str) -> dict[str, str]:
    """Node id -> what is wrong with it; the command says the same on standard error, with exit code 1."""
    document = document_of(reference, code=1)
    assert document["broken"]
    done = run_lineage(reference)
    assert done.exit_code == 1
    for each in document["broken"]:
        assert f"({each['id']}): {each['fault']}" in done.stderr
    return {each["id"]: each["fault"] for each in document["broken"]}


@pytest.mark.parametrize("whose", ["pairing", "training", "comparison"])
def test_deleted_run_is_named(history: MlflowClient, pipeline_result: Document, whose: str) -> None:
    trained, _ = paired(pipeline_result)
    run_id = {
        "pairing": pipeline_result["pairs"]["mlflow_run_id"],
        "training": trained["mlflow_run_id"],
        "comparison": pipeline_result["mlflow_run_id"],
    }[whose]
    history.delete_run(run_id)
    try:
        for reference in (trained["mlflow_model_id"], trained["dataset_digest"]):
            assert _faults(reference) == {f"run:{run_id}": "somebody deleted this run in MLflow"}
    finally:
        history.restore_run(run_id)
    document_of(trained["mlflow_model_id"])


def test_run_that_mlflow_lacks_is_named(history: MlflowClient, pipeline_result: Document) -> None:
    trained, scored = paired(pipeline_result)
    lost = "0123456789abcdef" * 2
    history.set_tag(scored["mlflow_run_id"], "pairflow.training_run", lost)
    history.set_tag(scored["mlflow_run_id"], "mlflow.parentRunId", lost)
    try:
        assert _faults(trained["mlflow_model_id"]) == {f"run:{lost}": "MLflow has no such run"}
    finally:
        history.set_tag(scored["mlflow_run_id"], "pairflow.training_run", trained["mlflow_run_id"])
        history.set_tag(scored["mlflow_run_id"], "mlflow.parentRunId", pipeline_result["mlflow_run_id"])


def test_missing_files_are_named(pipeline_result: Document, tmp_path: Path) -> None:
    trained, _ = paired(pipeline_result)
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
    document_of(trained["mlflow_model_id"])


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
    done = run_lineage(reference, "--json")
    assert done.exit_code == 1
    assert type(done.exception).__name__ == "LineageError"
    assert "expected" in str(done.exception) or "MLflow" in str(done.exception)


def test_several_things_of_one_prefix(history: MlflowClient, pipeline_result: Document) -> None:
    trained, _ = paired(pipeline_result)
    twin = history.create_run(
        pipeline_result["mlflow_experiment_id"],
        tags={"pairflow.stage": "train", "pairflow.fingerprint": trained["fingerprint"][:20] + "0" * 44},
    )
    try:
        done = run_lineage(trained["fingerprint"][:8])
        assert done.exit_code == 1
        assert "give more digits" in str(done.exception)
    finally:
        history.delete_run(twin.info.run_id)
    assert document_of(trained["fingerprint"][:8])["starts"] == [f"model:{trained['mlflow_model_id']}"]


def test_folder_without_a_checkpoint(pipeline_result: Document, tmp_path: Path) -> None:
    assert "no checkpoint in" in str(run_lineage(str(tmp_path)).exception)
    (tmp_path / "state.json").write_text('{"sha256": "' + "a" * 64 + '"}')
    assert "knows no training of the checkpoint" in str(run_lineage(str(tmp_path)).exception)
    (tmp_path / "state.json").write_text("[")
    assert "is damaged" in str(run_lineage(str(tmp_path)).exception)


def test_home_without_history(bare_cli: Cli, tmp_path: Path) -> None:
    done = bare_cli("lineage", "digits", PAIRFLOW_HOME=str(tmp_path))
    assert done.code == 1
    assert "nothing was ever run here" in done.stderr
    assert list(tmp_path.iterdir()) == []
    assert bare_cli("lineage", PAIRFLOW_HOME=str(tmp_path)).code == 2
