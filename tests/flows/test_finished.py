"""What is finished is found before anything starts, with the first time's answer; and what is not is not."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from flows.cluster import local
from flows.command import app, temporary_prefect
from flows.home.settings import Settings
from flows.jobs import evaluations, finished, finished_comparison, known_data
from flows.lineage.finished_runs import FinishedRun, finished_run
from flows.lineage.tracking import Lineage
from flows.pages import terminal
from flows.parameters import (
    EvaluateParameters,
    FlowParameters,
    PairParameters,
    PipelineParameters,
    TrainParameters,
)
from flows.recipes.changes import assignments, with_assignments
from flows.requests import EvaluateRequest, PairRequest, TrainRequest
from flows.results import ComparisonResult, PairResult
from pairflow.coupling.versions import VERSIONS
from pairflow.datasets import outside

from .conftest import PIPELINE, Cli

Document = dict[str, Any]
pytestmark = pytest.mark.usefixtures("in_this_process")
_DATA = {"name": "nci", "max_rows": 150}
_MODEL = [*PIPELINE[PIPELINE.index("--set") : PIPELINE.index("--set") + 6]]
_SET = [str(word) for word in PIPELINE[PIPELINE.index("--set") + 1 :: 2]]


@pytest.fixture
def document(pipeline_result: Document, history: MlflowClient) -> Document:
    """What the pipeline came to; its flow run is the last one that had something to do."""
    return pipeline_result | {"prefect_run_id": _prefect_run(history, pipeline_result["mlflow_run_id"])}


@pytest.fixture
def settings(pipeline_result: Document) -> Settings:
    return Settings.read()


@pytest.fixture
def no_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever starts a server fails."""

    def start(*_: object, **__: object) -> None:
        raise AssertionError("a server was started")

    monkeypatch.setattr(local.LocalCluster, "__init__", start)
    monkeypatch.setattr(temporary_prefect, "temporary_server", start)


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


def _parameters(parameters_type: type[FlowParameters], **fields: Any) -> Any:
    wanted = parameters_type.model_validate({"dataset": _DATA, **fields})
    known = {name.partition(".")[0] for name in type(wanted).model_fields}
    return with_assignments(wanted, assignments([each for each in _SET if each.partition(".")[0] in known]))


def _pair(settings: Settings, **fields: Any) -> PairResult | None:
    found = finished.find_pairs(PairRequest.of(_parameters(PairParameters, **fields)), settings)
    return None if found is None else found.result


def _again(document: Document) -> Document:
    """A document without what tells the first time from others."""
    own = {"skipped", "seconds"}
    lists = {"trainings", "distillations", "other_pairs", "redi_pairs"}
    return {
        name: _again(value) if isinstance(value, dict) else [_again(each) for each in value] if name in lists else value
        for name, value in document.items()
        if name not in own
    }


def test_the_whole_is_found_by_a_process_that_loads_no_server(
    bare_environment: dict[str, str], document: Document
) -> None:
    """None is asked either: the environment names none."""
    words = [sys.executable, "-X", "importtime", "-m", "flows.command.app", *map(str, PIPELINE)]
    done = subprocess.run(words, env=bare_environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    again = json.loads(done.stdout.splitlines()[-1])
    assert _again(again) == _again(document)
    assert all(each["skipped"] for each in (again["pairs"], *again["trainings"], again["evaluation"]))
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "storage" in loaded
    assert loaded.isdisjoint({"prefect", "ray", "mlflow", "torch", "numba", "sklearn"})
    said = [line for line in done.stderr.splitlines() if "nothing to do" in line]
    assert len(said) == 6
    assert said[0].startswith("pair nci ▸ nothing to do: these pairs are whole, at ")


def _run(words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(sys, "argv", ["pairflow", *words])
    with pytest.raises(SystemExit) as ended:
        app.main()
    assert ended.value.code == 0
    return capsys.readouterr()


@pytest.mark.usefixtures("no_servers")
def test_each_stage_is_found(
    pipeline_result: Document, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = ["--dataset", "nci", "--max-rows", "150", "--json"]
    assignment = ["--coupling", "assignment", "--sources-per-target", "8"]  # as the preset has it
    sets = [*map(str, PIPELINE[PIPELINE.index("--set") :])]
    (trained,) = (each for each in pipeline_result["trainings"] if each["method"] == "udlm")
    for words, expected in (
        (["pair", *data], pipeline_result["pairs"]),
        (["pair", *data, *assignment], pipeline_result["other_pairs"][0]),
        (["train", *data, "--method", "udlm", *map(str, _MODEL)], trained),
        (["evaluate", *data, "--methods", "udlm,pairflow,assigned", *sets], pipeline_result["evaluation"]),
    ):
        said = _run(words, capsys, monkeypatch)
        again = json.loads(said.out.splitlines()[-1])
        assert again["skipped"]
        assert _again(again) == _again(expected)
        assert said.err.count("nothing to do") == 1
        assert "150 of " in said.err


@pytest.mark.usefixtures("no_servers")
def test_a_terminal_shows_the_same_tables(
    settings: Settings,
    document: Document,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal.report(ComparisonResult.model_validate(document), settings)
    expected = capsys.readouterr().out
    said = _run([*(str(word) for word in PIPELINE if word != "--json"), "--quiet"], capsys, monkeypatch)
    assert said.out == expected
    assert said.err == ""


class TestWhatIsNotFinished:
    def test_damaged_pairs(self, settings: Settings, pipeline_result: Document, tmp_path: Path) -> None:
        url = Path(pipeline_result["pairs"]["url"])
        copy = tmp_path / "pairs" / url.name
        shutil.copytree(url, copy)
        elsewhere = settings.at_store(str(tmp_path))
        assert _pair(elsewhere) is not None
        for path in [each for each in sorted(copy.rglob("*")) if each.is_file()]:
            sound = path.read_bytes()
            path.write_bytes(sound[:-1] + bytes([sound[-1] ^ 1]))
            assert _pair(elsewhere) is None, path
            path.unlink()
            assert _pair(elsewhere) is None, path
            path.write_bytes(sound)
        assert _pair(elsewhere) is not None

    def test_another_setting_format_or_version(self, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
        assert _pair(settings) is not None
        assert _pair(settings, coupling={"num_steps": 21}) is None
        assert _pair(settings, format="parquet") is None
        assert _pair(settings, dataset={**_DATA, "split_seed": 1}) is None
        monkeypatch.setitem(VERSIONS, "cpu", VERSIONS["cpu"] + 1)
        assert _pair(settings) is None

    def test_of_code_that_reads_otherwise(self, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(outside, "_reader", lambda: {"code": "another"})
        assert _pair(settings) is None

    def test_of_data_that_nobody_has_read_here(
        self, settings: Settings, put_back: Callable[[str | Path], Path]
    ) -> None:
        for path in settings.known_data_dir.iterdir():
            put_back(path)
        assert _pair(settings) is None

    def test_of_data_whose_record_is_damaged(self, settings: Settings) -> None:
        sound = {path: path.read_bytes() for path in settings.known_data_dir.iterdir()}
        for damage in (lambda _: b"", lambda _: b"\xff\xfe", lambda text: text[:-40]):
            try:
                for path, content in sound.items():
                    path.write_bytes(damage(content))
                assert _pair(settings) is None
            finally:
                for path, content in sound.items():
                    path.write_bytes(content)
        assert _pair(settings) is not None

    def test_where_jobs_run_elsewhere(self, settings: Settings) -> None:
        """Another machine may have other data at the same place."""
        assert _pair(settings.model_copy(update={"ray_address": "http://127.0.0.1:8265"})) is not None
        assert _pair(settings.model_copy(update={"ray_address": "http://ray.example:8265"})) is None

    def test_runs_that_mlflow_has_no_more(
        self, settings: Settings, history: MlflowClient, pipeline_result: Document
    ) -> None:
        of_pairs, experiment = pipeline_result["pairs"]["mlflow_run_id"], pipeline_result["mlflow_experiment_id"]
        history.delete_run(of_pairs)
        try:
            assert _pair(settings) is None
        finally:
            history.restore_run(of_pairs)
        history.delete_experiment(experiment)
        try:
            assert _pair(settings) is None
        finally:
            history.restore_experiment(experiment)
        assert _pair(settings) is not None

    @pytest.mark.parametrize("what", ["result.json", "scores.json", "report.html"])
    def test_a_comparison_of_which_something_is_gone(
        self, settings: Settings, pipeline_result: Document, put_back: Callable[[str | Path], Path], what: str
    ) -> None:
        wanted = _parameters(PipelineParameters).study
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

    def test_words_that_mlflow_was_not_sent(self, settings: Settings, pipeline_result: Document) -> None:
        """A comparison takes them along."""
        unsent = settings.home / "mlflow" / "unsent" / "train-x.jsonl"
        unsent.parent.mkdir(parents=True, exist_ok=True)
        unsent.touch()
        try:
            assert finished_comparison.find(_parameters(PipelineParameters).study, "pipeline", settings) is None
        finally:
            unsent.unlink()

    def test_a_changed_training_or_evaluation(self, settings: Settings) -> None:
        def trained(**fields: Any) -> object:
            return finished.find_model(TrainRequest.of(_parameters(TrainParameters, **fields)), settings)

        # The seed of nobody else: what other tests of this home trained, in whatever order, is finished.
        other = {"num_steps": 6, "batch_size": 16, "seed": 977}
        assert trained(method="udlm") is not None
        assert trained(method="mdlm", training=other) is None
        assert trained(method="udlm", training=other) is None
        methods = ("udlm", "pairflow", "assigned")
        evaluated = _parameters(EvaluateParameters, methods=methods)
        assert evaluations.find(EvaluateRequest.of(evaluated), settings) is not None
        one = _parameters(EvaluateParameters, methods=methods[2:])
        assert evaluations.find(EvaluateRequest.of(one), settings) is None


def test_mlflows_own_client_says_the_same(
    settings: Settings, history: MlflowClient, pipeline_result: Document, home: Path
) -> None:
    lineage = Lineage(settings)
    experiment = pipeline_result["mlflow_experiment_id"]
    runs = history.search_runs([experiment])
    known = {(run.data.tags["pairflow.stage"], run.data.tags["pairflow.fingerprint"]) for run in runs}
    assert len(known) >= 8
    for stage, fingerprint in (*known, ("pair", "0" * 64)):
        found = finished_run(settings, "nci", stage, fingerprint)
        run_id = lineage.finished("nci", stage, fingerprint)
        assert found == lineage.finished_run("nci", stage, fingerprint)
        assert found == (None if run_id is None else FinishedRun(run_id, experiment, _prefect_run(history, run_id)))
    assert finished_run(settings, "no-such-data", "pair", "0" * 64) is None
    nowhere = settings.model_copy(update={"home": home / "nowhere"})
    assert finished_run(nowhere, *("nci", "pair", pipeline_result["pairs"]["fingerprint"])) is None
    assert not nowhere.home.exists()


def _prefect_run(history: MlflowClient, run_id: str) -> str:
    return history.get_run(run_id).data.tags["pairflow.prefect_run_id"]


def test_a_record_speaks_of_the_parts_that_are_read(settings: Settings) -> None:
    from pairflow.datasets import load

    parameters = _parameters(PairParameters)
    facts = known_data.recall(parameters.dataset, settings)
    assert facts is not None
    data = load(parameters.dataset, progress=False)
    assert facts.train == known_data.PartFacts.of(data.part("train"))
    assert facts.test == known_data.PartFacts.of(data.part("test"))
    assert facts.summary == data.report.summary()


def test_of_a_half_finished_comparison_only_the_rest_is_done(
    cli: Cli, new_bare_cli: Cli, settings: Settings, pipeline_result: Document
) -> None:
    """Two of the pipeline's methods, whose models are trained and scored, side by side for the first time."""
    comparison = ["study", *PIPELINE[1:], "--methods", "udlm,pairflow"]
    before = {*os.listdir(settings.home / "store" / "jobs")}
    first = cli(*comparison)
    assert first.code == 0, first.stderr
    made = json.loads(first.last_line)
    assert all(each["skipped"] for each in (made["pairs"], *made["trainings"]))
    assert not made["evaluation"]["skipped"]
    assert made["evaluation"]["models"] == pipeline_result["evaluation"]["models"][:2]
    (job,) = {*os.listdir(settings.home / "store" / "jobs")} - before
    assert job.startswith("evaluate-")
    again = new_bare_cli(*comparison)
    assert again.code == 0, again.stderr
    assert _again(json.loads(again.last_line)) == _again(made)
