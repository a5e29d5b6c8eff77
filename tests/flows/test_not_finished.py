"""What is not finished is not found: damaged, changed, gone, or of data that nobody knows."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from flows.home.settings import Settings
from flows.jobs import evaluations, finished, finished_comparison
from flows.parameters import EvaluateParameters, PipelineParameters, TrainParameters
from flows.requests import EvaluateRequest, TrainRequest
from pairflow.coupling.versions import VERSIONS
from pairflow.datasets import outside

from .finished_work import DATA, Document, pair, parameters

pytestmark = pytest.mark.usefixtures("in_this_process")


@pytest.fixture
def settings(pipeline_result: Document) -> Settings:
    return Settings.read()


@pytest.fixture
def put_back() -> Iterator[Callable[[str | Path], Path]]:
    """Takes a file away for the time of a test."""
    moved: list[tuple[Path, Path]] = []

    def away(path: str | Path) -> Path:
        path = Path(path)
        moved.append((path, path.with_name(f"{path.name}.away")))
        path.rename(moved[-1][1])
        return path

    yield away
    for path, elsewhere in moved:
        elsewhere.replace(path)


def test_damaged_pairs(settings: Settings, pipeline_result: Document, tmp_path: Path) -> None:
    url = Path(pipeline_result["pairs"]["url"])
    copy = tmp_path / "pairs" / url.name
    shutil.copytree(url, copy)
    elsewhere = settings.at_store(str(tmp_path))
    assert pair(elsewhere) is not None
    for path in [each for each in sorted(copy.rglob("*")) if each.is_file()]:
        sound = path.read_bytes()
        path.write_bytes(sound[:-1] + bytes([sound[-1] ^ 1]))
        assert pair(elsewhere) is None, path
        path.unlink()
        assert pair(elsewhere) is None, path
        path.write_bytes(sound)
    assert pair(elsewhere) is not None


def test_another_setting_format_or_version(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    assert pair(settings) is not None
    assert pair(settings, coupling={"num_steps": 21}) is None
    assert pair(settings, format="parquet") is None
    assert pair(settings, dataset={**DATA, "split_seed": 1}) is None
    monkeypatch.setitem(VERSIONS, "cpu", VERSIONS["cpu"] + 1)
    assert pair(settings) is None


def test_of_code_that_reads_otherwise(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outside, "_reader", lambda: {"code": "another"})
    assert pair(settings) is None


def test_of_data_that_nobody_has_read_here(settings: Settings, put_back: Callable[[str | Path], Path]) -> None:
    for path in settings.known_data_dir.iterdir():
        put_back(path)
    assert pair(settings) is None


def test_of_data_whose_record_is_damaged(settings: Settings) -> None:
    sound = {path: path.read_bytes() for path in settings.known_data_dir.iterdir()}
    for damage in (lambda _: b"", lambda _: b"\xff\xfe", lambda text: text[:-40]):
        try:
            for path, content in sound.items():
                path.write_bytes(damage(content))
            assert pair(settings) is None
        finally:
            for path, content in sound.items():
                path.write_bytes(content)
    assert pair(settings) is not None


def test_where_jobs_run_elsewhere(settings: Settings) -> None:
    """Another machine may have other data at the same place."""
    assert pair(settings.model_copy(update={"ray_address": "http://127.0.0.1:8265"})) is not None
    assert pair(settings.model_copy(update={"ray_address": "http://ray.example:8265"})) is None


def test_runs_that_mlflow_has_no_more(settings: Settings, history: MlflowClient, pipeline_result: Document) -> None:
    of_pairs, experiment = pipeline_result["pairs"]["mlflow_run_id"], pipeline_result["mlflow_experiment_id"]
    history.delete_run(of_pairs)
    try:
        assert pair(settings) is None
    finally:
        history.restore_run(of_pairs)
    history.delete_experiment(experiment)
    try:
        assert pair(settings) is None
    finally:
        history.restore_experiment(experiment)
    assert pair(settings) is not None


@pytest.mark.parametrize("what", ["result.json", "scores.json", "report.html"])
def test_a_comparison_of_which_something_is_gone(
    settings: Settings, pipeline_result: Document, put_back: Callable[[str | Path], Path], what: str
) -> None:
    wanted = parameters(PipelineParameters).study
    assert finished_comparison.find(wanted, "pipeline", settings) is not None
    assert finished_comparison.find(wanted, "study", settings) is None  # which nobody has run
    evaluation, training = pipeline_result["evaluation"], pipeline_result["trainings"][1]
    scored = evaluation["models"][0]["evaluation_fingerprint"]
    put_back(
        {
            "result.json": settings.runs_dir / training["fingerprint"] / what,
            "scores.json": settings.evaluations_dir / scored / what,
            "report.html": evaluation["report"],
        }[what]
    )
    assert finished_comparison.find(wanted, "pipeline", settings) is None


def test_words_that_mlflow_was_not_sent(settings: Settings, pipeline_result: Document) -> None:
    """A comparison takes them along."""
    unsent = settings.home / "mlflow" / "unsent" / "train-x.jsonl"
    unsent.parent.mkdir(parents=True, exist_ok=True)
    unsent.touch()
    try:
        assert finished_comparison.find(parameters(PipelineParameters).study, "pipeline", settings) is None
    finally:
        unsent.unlink()


def test_a_changed_training_or_evaluation(settings: Settings) -> None:
    def trained(**fields: Any) -> object:
        return finished.find_model(TrainRequest.of(parameters(TrainParameters, **fields)), settings)

    # The seed of nobody else: what other tests of this home trained, in whatever order, is finished.
    other = {"num_steps": 6, "batch_size": 16, "seed": 977}
    assert trained(method="udlm") is not None
    assert trained(method="mdlm", training=other) is None
    assert trained(method="udlm", training=other) is None
    methods = ("udlm", "pairflow", "assigned")
    evaluated = parameters(EvaluateParameters, methods=methods)
    assert evaluations.find(EvaluateRequest.of(evaluated), settings) is not None
    one = parameters(EvaluateParameters, methods=methods[2:])
    assert evaluations.find(EvaluateRequest.of(one), settings) is None
