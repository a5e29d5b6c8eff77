"""MLflow goes away, is slow, or loses the run in the middle of a training: the training does not notice."""

import json
import logging
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from flows.cluster.protocol import JobContext
from flows.jobs import train
from flows.lineage import tags as tag
from flows.lineage.errors import LineageError
from flows.lineage.stage_run import StageRun
from flows.parameters import TrainParameters
from flows.requests import TrainRequest
from flows.results import TrainResult
from pairflow.checkpoint import read_state
from pairflow.presets import preset
from pairflow.spec import DatasetSpec

from .conftest import Cli
from .mlflow_server import MlflowServer

_DATA = DatasetSpec(name="digits", max_rows=40)
_STEPS = 30
_LONGEST_STEP_S = 20  # of a machine that is very busy; waiting for MLflow would take its patience, 300 s


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    made = MlflowServer(tmp_path_factory.mktemp("mlflow"))
    made.start()
    try:
        yield made
    finally:
        made.kill()
    assert made.troubles() == []


@pytest.fixture
def client(server: MlflowServer) -> MlflowClient:
    return MlflowClient(server.url)


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, server: MlflowServer) -> None:
    monkeypatch.setenv("PAIRFLOW_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PAIRFLOW_THREADS_PER_JOB", "1")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
    monkeypatch.setenv("PAIRFLOW_MLFLOW_PATIENCE", "300")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")


def _parameters(seed: int) -> TrainParameters:
    settings = preset("demo", "digits")
    training = settings.training.model_copy(update={"num_steps": _STEPS, "batch_size": 8, "seed": seed})
    model = settings.model.model_copy(update={"hidden_size": 16})
    return TrainParameters(dataset=_DATA, method="udlm", training=training, model=model)


def _train(seed: int, monkeypatch: pytest.MonkeyPatch, at_step: dict[int, Callable[[StageRun], None]]) -> TrainResult:
    """Trains in this process; what `at_step` says happens when the metrics of that step are logged."""
    plain = StageRun.log

    def log(run: StageRun, metrics: dict[str, float], *, step: int = 0, **more: object) -> None:
        if "train_loss" in metrics and step in at_step:
            at_step[step](run)
        started = time.monotonic()
        plain(run, metrics, step=step, **more)  # type: ignore[arg-type]
        assert time.monotonic() - started < _LONGEST_STEP_S

    with monkeypatch.context() as patch:
        patch.setattr(StageRun, "log", log)
        return train.run(TrainRequest.of(_parameters(seed)), JobContext(submission_id="train-1", flow_run_id="1"))


def _said(caplog: pytest.LogCaptureFixture, words: str) -> int:
    return sum(words in record.getMessage() for record in caplog.records if record.levelno == logging.WARNING)


def _wait_until_said(caplog: pytest.LogCaptureFixture, words: str) -> None:
    deadline = time.monotonic() + 60
    while not _said(caplog, words):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _check_whole(client: MlflowClient, result: TrainResult) -> None:
    """Every metric is there exactly once and in order, and the run and its model are as if nothing had been."""
    run = client.get_run(result.mlflow_run_id)
    assert run.info.status == "FINISHED"
    for name in ("train_loss", "learning_rate", "gradient_norm", "tokens_per_second"):
        history = client.get_metric_history(run.info.run_id, name)
        assert [each.step for each in history] == list(range(1, _STEPS + 1))
        assert [each.timestamp for each in history] == sorted(each.timestamp for each in history)
    assert run.data.metrics["final_loss"] == pytest.approx(float(read_state(Path(result.checkpoint))["loss"]))
    assert run.data.tags["pairflow.method"] == "udlm"
    assert run.data.params["training.num_steps"] == str(_STEPS)
    assert [each.model_id for each in run.outputs.model_outputs] == [result.mlflow_model_id]
    assert client.get_logged_model(result.mlflow_model_id).status == "READY"
    assert list(Path(result.checkpoint).parents[3].glob("mlflow/unsent/*")) == []


def test_server_is_killed_and_started_again(
    server: MlflowServer, client: MlflowClient, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(run: StageRun) -> None:
        run.settle()
        server.kill()

    def start(run: StageRun) -> None:
        _wait_until_said(caplog, "does not answer")
        server.start()

    result = _train(1, monkeypatch, {10: kill, 20: start})
    _check_whole(client, result)
    assert _said(caplog, "does not answer") == 1
    assert _said(caplog, "MLflow answers again") == 1


def test_server_is_slow(
    server: MlflowServer, client: MlflowClient, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the start, before the run is begun, and once more in the middle."""

    def resume(run: StageRun) -> None:
        _wait_until_said(caplog, "does not answer")
        server.resume()
        run.settle()

    def resume_again(run: StageRun) -> None:
        time.sleep(2)  # longer than a request may take
        server.resume()

    server.pause()
    try:
        result = _train(2, monkeypatch, {5: resume, 10: lambda _: server.pause(), 20: resume_again})
    finally:
        server.resume()
    _check_whole(client, result)
    assert _said(caplog, "does not answer") <= 2
    # A request that was given up may have been heard all the same: no second run may come of it.
    runs = client.search_runs([result.mlflow_experiment_id], f"tags.`{tag.FINGERPRINT}` = '{result.fingerprint}'")
    assert [run.info.run_id for run in runs] == [result.mlflow_run_id]


def test_run_is_deleted(
    client: MlflowClient, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    deleted = []

    def delete(run: StageRun) -> None:
        run.settle()
        deleted.append(run.run_id)
        client.delete_run(run.run_id)

    result = _train(3, monkeypatch, {10: delete})
    assert result.mlflow_run_id not in deleted
    _check_whole(client, result)
    assert _said(caplog, f"somebody deleted the MLflow run {deleted[0]}") == 1


def test_server_is_away_when_the_training_ends(
    server: MlflowServer, client: MlflowClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PAIRFLOW_MLFLOW_PATIENCE", "2")
    try:
        with pytest.raises(LineageError, match=r"what was computed is kept.*run the same command again"):
            _train(4, monkeypatch, {10: lambda _: server.kill()})
        assert len(list((tmp_path / "home" / "mlflow" / "unsent").glob("train-*.jsonl"))) == 1
    finally:
        server.start()
    monkeypatch.setenv("PAIRFLOW_MLFLOW_PATIENCE", "300")
    steps: dict[int, Callable[[StageRun], None]] = {}
    result = _train(4, monkeypatch, steps)  # goes on from the last step, so it takes none
    assert not result.skipped
    _check_whole(client, result)
    assert _train(4, monkeypatch, steps).skipped


_KILLED = """
import os, sys
from flows.cluster.protocol import JobContext
from flows.lineage.tracking import Lineage
from flows.home.settings import Settings
from pairflow.spec import DatasetSpec

context = JobContext(submission_id=None, flow_run_id="1")
with Lineage(Settings.read()).run(
    "nci", "train", "f" * 64, name="it's <b>odd</b> | `x`", specs={"dataset": DatasetSpec(name="nci")}, context=context
) as run:
    for step in range(100):
        run.log({"loss": step / 2}, step=step)
    os._exit(9)
"""


def test_killed_without_a_server_and_sent_later(
    server: MlflowServer, client: MlflowClient, bare_cli: Cli, tmp_path: Path
) -> None:
    server.kill()
    try:
        assert subprocess.run([sys.executable, "-c", _KILLED], check=False).returncode == 9
        home = {"PAIRFLOW_HOME": str(tmp_path / "home"), "MLFLOW_TRACKING_URI": server.url}
        away = bare_cli("lineage", "--sync", **home)
        assert away.code == 1
        assert "cannot be reached" in away.stderr
        assert "Traceback" not in away.stderr
    finally:
        server.start()
    unsent = tmp_path / "home" / "mlflow" / "unsent"
    (kept,) = unsent.glob("*.jsonl")
    assert sum(json.loads(line)["do"] == "metrics" for line in kept.read_text().splitlines()) == 100
    done = bare_cli("lineage", "--sync", **home)
    assert done.code == 0, done.stderr
    experiment = client.get_experiment_by_name("pairflow-nci")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_name == "it's <b>odd</b> | `x`"
    assert run.info.status == "KILLED"
    history = client.get_metric_history(run.info.run_id, "loss")
    assert [(each.step, each.value) for each in history] == [(step, step / 2) for step in range(100)]
    assert list(unsent.glob("*")) == []


def test_wrong_address_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nonsense://host")
    with pytest.raises(LineageError, match="MLFLOW_TRACKING_URI"):
        _train(5, monkeypatch, {})


class _Cut(BaseException):
    """As if the process had been killed there."""


@pytest.mark.parametrize("fault", [_Cut(), MlflowException("no connection")], ids=["killed", "away"])
def test_logging_a_model_is_cut_off(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch, fault: BaseException
) -> None:
    """One without files stays, by the same run or one that is over, until the model is logged; others' are theirs."""
    faults: list[BaseException] = [fault, fault]
    plain = MlflowClient.log_model_artifacts

    def cut_off(self: MlflowClient, model_id: str, folder: str) -> None:
        if faults:
            raise faults.pop()
        plain(self, model_id, folder)

    monkeypatch.setattr(MlflowClient, "log_model_artifacts", cut_off)
    seed = 5 + isinstance(fault, _Cut)
    while isinstance(fault, _Cut) and faults:
        with pytest.raises(_Cut):
            _train(seed, monkeypatch, {})
    first = _train(seed, monkeypatch, {})
    assert _models(client, first) == {first.mlflow_model_id: "READY"}

    at_work = client.create_run(first.mlflow_experiment_id)
    theirs = client.create_logged_model(
        first.mlflow_experiment_id, source_run_id=at_work.info.run_id, tags={tag.FINGERPRINT: first.fingerprint}
    )
    client.delete_run(first.mlflow_run_id)
    again = _train(seed, monkeypatch, {})
    assert _models(client, again) == {
        first.mlflow_model_id: "READY",
        again.mlflow_model_id: "READY",
        theirs.model_id: "PENDING",
    }


def _models(client: MlflowClient, result: TrainResult) -> dict[str, str]:
    same = f"tags.`{tag.FINGERPRINT}` = '{result.fingerprint}'"
    found = client.search_logged_models([result.mlflow_experiment_id], same)
    return {str(each.model_id): str(each.status) for each in found}
