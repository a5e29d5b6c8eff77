"""Experiments in MLflow that people delete or rename: their runs stay known."""

from pathlib import Path

import pytest

from flows.home.references import Other
from flows.home.settings import Settings
from flows.lineage import tags as tag
from flows.lineage.tracing.starts import find
from flows.lineage.tracking import Lineage


@pytest.fixture(scope="module")
def lineage(tmp_path_factory: pytest.TempPathFactory) -> Lineage:
    return Lineage(Settings(home=tmp_path_factory.mktemp("experiments")))


@pytest.mark.parametrize("scheme", ["sqlite", "sqlite+pysqlite"])
def test_files_of_a_history_without_a_server_lie_in_the_home(tmp_path: Path, scheme: str) -> None:
    """MLflow would put them in the working directory, which is a job's own and goes with it."""
    (tmp_path / "home").mkdir()
    lineage = Lineage(Settings(home=tmp_path / "home", mlflow_uri=f"{scheme}:///{tmp_path}/theirs.db"))
    experiment = lineage.client.get_experiment(lineage.experiment("nci"))
    assert experiment.artifact_location.startswith((tmp_path / "home/mlflow/artifacts").as_uri())


@pytest.mark.parametrize("uri", ["postgresql://u@h/db", "postgresql+psycopg2://u:p@h/db", "mysql+pymysql://u@h/db"])
def test_so_do_those_of_any_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uri: str) -> None:
    monkeypatch.setattr("flows.lineage.tracking.MlflowClient", lambda _: None)  # nobody answers there
    place = Lineage(Settings(home=tmp_path, mlflow_uri=uri))._artifacts("pairflow-nci")
    assert place == (tmp_path / "mlflow/artifacts/pairflow-nci").as_uri()
    assert Lineage(Settings(home=tmp_path, mlflow_uri="https://h:5000"))._artifacts("pairflow-nci") is None


def test_an_experiment_that_somebody_deleted_is_restored_with_its_runs(lineage: Lineage) -> None:
    experiment = lineage.experiment("nci")
    run = lineage.client.create_run(experiment).info.run_id
    lineage.client.delete_experiment(experiment)
    assert lineage.experiment("nci") == experiment
    assert lineage.client.get_run(run).info.lifecycle_stage == "active"
    lineage.client.log_metric(run, "loss", 1.0)  # which MLflow refuses in one that is deleted


def test_an_experiment_that_somebody_renamed_goes_on(lineage: Lineage) -> None:
    """Its runs stay found, and so does what they refer to: `gc --unreferenced` would remove their pairs."""
    experiment = lineage.experiment("digits")
    tags = {tag.PAIRS_FINGERPRINT: "ab" * 32, tag.FINGERPRINT: "cd" * 32, tag.DATASET_DIGEST: "ef" * 32}
    run = lineage.client.create_run(experiment, tags=tags | {tag.STAGE: "pair"}).info.run_id
    lineage.client.set_terminated(run)
    lineage.client.rename_experiment(experiment, "chosen by people")
    assert lineage.experiment("digits") == experiment
    assert lineage.finished("digits", "pair", "cd" * 32) == run
    # Where both are there, as an earlier release left them, new runs go where the name says, and the old ones count.
    second = lineage.client.create_experiment("pairflow-digits")
    assert lineage.experiment("digits") == second
    assert (lineage.runs_of_pairs() or {})["ab" * 32] == run
    assert find(Other("digits"), lineage.client).digests == {"ef" * 32}
