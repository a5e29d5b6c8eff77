"""What is finished is found before anything starts, with the first time's answer."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from flows.cluster import local
from flows.command import app, temporary_prefect
from flows.home.settings import Settings
from flows.jobs import known_data
from flows.lineage.finished_runs import FinishedRun, finished_run
from flows.lineage.tracking import Lineage
from flows.pages import terminal
from flows.parameters import (
    PairParameters,
)
from flows.results import ComparisonResult

from .conftest import PIPELINE, Cli
from .finished_work import Document, parameters

pytestmark = pytest.mark.usefixtures("in_this_process")
_MODEL = [*PIPELINE[PIPELINE.index("--set") : PIPELINE.index("--set") + 6]]


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

    wanted = parameters(PairParameters)
    facts = known_data.recall(wanted.dataset, settings)
    assert facts is not None
    data = load(wanted.dataset, progress=False)
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
