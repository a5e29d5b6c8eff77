"""How a flow and its job speak to each other: request, result, error and progress."""

import itertools
import logging
import time
from pathlib import Path
from typing import Any

import pytest

from flows.cluster.protocol import JobContext, JobFolder, Progress, ProgressLines, check_store, main, parse_line
from flows.parameters import PairParameters
from pairflow.errors import DatasetError, StoreError
from pairflow.spec import DatasetSpec, TrainingSpec

_CONTEXT = JobContext(submission_id="pair-1", flow_run_id="1")


def test_request_and_result_come_back(tmp_path: Path) -> None:
    folder = JobFolder(f"{tmp_path}/jobs/pair-1")
    parameters = PairParameters(dataset=DatasetSpec(name="nci"), shard_size=7)
    folder.write_request(parameters, _CONTEXT)
    assert folder.read_request(PairParameters) == (parameters, _CONTEXT)
    assert folder.read_result(TrainingSpec) is None
    folder.write_result(TrainingSpec(num_steps=3))
    assert folder.read_result(TrainingSpec) == TrainingSpec(num_steps=3)
    assert sorted(path.name for path in tmp_path.rglob("*.json")) == ["request.json", "result.json"]


def test_any_filesystem() -> None:
    folder = JobFolder("memory://jobs/pair-2")
    folder.write_error(DatasetError("no such file"))
    error = folder.read_error()
    assert error is not None
    assert (error.type, error.message, error.expected) == ("DatasetError", "no such file", True)


@pytest.mark.parametrize(("error", "expected"), [(DatasetError("what, got"), True), (KeyError("x"), False)])
def test_failure_is_written_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, expected: bool
) -> None:
    def work(parameters: PairParameters, context: JobContext) -> Any:
        raise error

    folder = JobFolder(str(tmp_path))
    folder.write_request(PairParameters(), _CONTEXT)
    monkeypatch.setenv("PAIRFLOW_JOB_URL", folder.url)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    assert main(PairParameters, work) == 1
    written = folder.read_error()
    assert written is not None
    assert (written.type, written.expected) == (type(error).__name__, expected)
    assert folder.read_result(TrainingSpec) is None


def test_lines(capsys: pytest.CaptureFixture[str]) -> None:
    assert parse_line("WARNING | slow") == (logging.WARNING, "slow")
    assert parse_line("a | b") == (logging.INFO, "a | b")
    assert parse_line("PROGRESS | nearly there") == (logging.INFO, "PROGRESS | nearly there")
    of_ray = "2026-11-26 11:35:36,123\t%s job_manager.py:568 -- Runtime env is setting up."
    assert parse_line(of_ray % "INFO") == (logging.DEBUG, "Runtime env is setting up.")
    entry = "Running entrypoint for job a-1: python -m b"
    assert parse_line(entry) == (logging.DEBUG, entry)
    assert parse_line(of_ray % "ERROR") == (logging.ERROR, "Runtime env is setting up.")
    with ProgressLines(desc="pair", total=3, unit="rows") as bar:
        bar.update(2)
        bar.update(1)
    said = [parse_line(line) for line in capsys.readouterr().out.splitlines()]
    assert [each.done for each in said if isinstance(each, Progress)] == [0, 3]  # the 2 came too soon after the 0


def test_progress_in_words() -> None:
    progress = Progress(description="pair qm9", done=1000, total=4600, unit="rows", rate=60.0)
    assert str(progress) == "pair qm9: 1,000 of 4,600 rows, 60 rows/s, 01:00 left"
    assert str(progress.model_copy(update={"done": 4600})) == "pair qm9: 4,600 of 4,600 rows"
    assert str(progress.model_copy(update={"rate": None})) == "pair qm9: 1,000 of 4,600 rows"


@pytest.mark.parametrize(
    "progress",
    [
        Progress(description="pair qm9", done=1000, total=4600, unit="rows", rate=60.0),
        Progress(description="sample: udlm, 4 of 8", done=0, total=1_234_567, unit="network calls"),
        Progress(description="a", done=1, total=2, unit="rows", rate=12_345.0),
        Progress(description="slow", done=1, total=2, unit="steps", rate=0.0125),
    ],
)
def test_progress_is_a_sentence_that_is_understood(progress: Progress) -> None:
    assert parse_line(f"PROGRESS | {progress}") == progress


def test_a_long_job_reports_ever_less_often(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [time.time()]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    seconds = 2 * 3600
    with ProgressLines(desc="train", total=4 * seconds, unit="steps") as bar:
        bar._time = lambda: clock[0]  # tqdm's own
        for _ in range(4 * seconds):
            clock[0] += 0.25
            bar.update(1)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "PROGRESS | train: 0 of 28,800 steps"
    assert lines[-1] == "PROGRESS | train: 28,800 of 28,800 steps"
    assert lines.count(lines[-1]) == 1
    done = [said.done for line in lines if isinstance(said := parse_line(line), Progress)]
    assert done[1] <= 4  # within a second
    gaps = [later - sooner for sooner, later in itertools.pairwise(done)]
    assert max(gaps) <= 4 * 10.5
    assert 700 < len(lines) < 1000  # every ten seconds, but for the first ten minutes


def test_store_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="--store"):
        check_store(str(tmp_path / "file" / "store"))
    check_store(str(tmp_path / "store"))
    assert list((tmp_path / "store").iterdir()) == []
