"""The parts of the flows that need no server."""

import functools
import logging
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from flows.cluster.protocol import JobContext, JobFolder, Progress, ProgressLines, check_store, main, parse_line
from flows.home.settings import Settings, prepare_environment
from flows.pages import terminal
from flows.pages.figures import pictures
from flows.pages.figures.curves import comparison
from flows.parameters import (
    PairParameters,
)
from flows.recipes.methods import METHODS, MethodName
from flows.results import (
    NUM_SAMPLES,
    EvaluateResult,
    Headline,
    MethodCost,
    ModelScores,
    Score,
    StepScores,
    over_seeds,
)
from flows.stages.side_by_side import side_by_side
from flows.stages.surroundings import here
from pairflow.datasets import load
from pairflow.errors import DatasetError, JobFailedError, SpecError, StoreError
from pairflow.spec import DatasetSpec, TrainingSpec

_CONTEXT = JobContext(submission_id="pair-1", flow_run_id="1")


@pytest.mark.parametrize("arguments", [["--help"], *([name, "--help"] for name in ("pair", "study", "sample", "up"))])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys; sys.argv = ['pairflow', *sys.argv[1:]]\n"
        "from flows.command.app import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'prefect', 'ray', 'torch', 'mlflow', 'numba', 'matplotlib', 'zarr', 'pyarrow', 'numpy'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    assert done.stdout.rstrip().endswith("[]")
    assert "Usage" in done.stdout


class TestProtocol:
    def test_request_and_result_come_back(self, tmp_path: Path) -> None:
        folder = JobFolder(f"{tmp_path}/jobs/pair-1")
        parameters = PairParameters(dataset=DatasetSpec(name="nci"), shard_size=7)
        folder.write_request(parameters, _CONTEXT)
        assert folder.read_request(PairParameters) == (parameters, _CONTEXT)
        assert folder.read_result(TrainingSpec) is None
        folder.write_result(TrainingSpec(num_steps=3))
        assert folder.read_result(TrainingSpec) == TrainingSpec(num_steps=3)
        assert sorted(path.name for path in tmp_path.rglob("*.json")) == ["request.json", "result.json"]

    def test_any_filesystem(self) -> None:
        folder = JobFolder("memory://jobs/pair-2")
        folder.write_error(DatasetError("no such file"))
        error = folder.read_error()
        assert error is not None
        assert (error.type, error.message, error.expected) == ("DatasetError", "no such file", True)

    @pytest.mark.parametrize(("error", "expected"), [(DatasetError("what, got"), True), (KeyError("x"), False)])
    def test_failure_is_written_down(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, expected: bool
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

    def test_lines(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert parse_line("WARNING | slow") == (logging.WARNING, "slow")
        assert parse_line("a | b") == (logging.INFO, "a | b")
        assert parse_line("@progress {broken") == (logging.INFO, "@progress {broken")
        with ProgressLines(desc="pair", total=3, unit="rows") as bar:
            bar.update(2)
            bar.update(1)
        said = [parse_line(line) for line in capsys.readouterr().out.splitlines()]
        assert [each.done for each in said if isinstance(each, Progress)] == [0, 3]  # the 2 came too soon after the 0

    def test_progress_in_words(self) -> None:
        progress = Progress(description="pair qm9", done=1000, total=4600, unit="rows", rate=60.0)
        assert str(progress) == "pair qm9: 1,000 of 4,600 rows, 60 rows/s, 01:00 left"
        assert str(progress.model_copy(update={"done": 4600})) == "pair qm9: 4,600 of 4,600 rows"
        assert str(progress.model_copy(update={"rate": None})) == "pair qm9: 1,000 of 4,600 rows"

    def test_store_that_cannot_be_written(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(StoreError, match="--store"):
            check_store(str(tmp_path / "file" / "store"))
        check_store(str(tmp_path / "store"))
        assert list((tmp_path / "store").iterdir()) == []


class TestSettings:
    def test_paths_are_absolute_and_addresses_kept(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("PAIRFLOW_HOME", "here")
        monkeypatch.setenv("PAIRFLOW_STORE", "s3://bucket/pairs")
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
        settings = Settings.read()
        assert settings.home == tmp_path / "here"
        assert settings.store == "s3://bucket/pairs"
        assert settings.tracking_uri == f"sqlite:///{tmp_path}/here/mlflow/mlflow.db"
        assert settings.job_environment()["PAIRFLOW_STORE"] == "s3://bucket/pairs"

    def test_pages_are_where_a_browser_finds_them(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr("os.environ", {"PAIRFLOW_HOME": str(tmp_path)})
        assert (Settings.read().mlflow_pages, Settings.read().ray_pages) == (None, None)
        within = {"MLFLOW_TRACKING_URI": "http://mlflow:5000/", "RAY_ADDRESS": "http://ray:8265"}
        monkeypatch.setattr("os.environ", {"PAIRFLOW_HOME": str(tmp_path), **within})
        assert (Settings.read().mlflow_pages, Settings.read().ray_pages) == ("http://mlflow:5000", "http://ray:8265")
        outside = {"PAIRFLOW_MLFLOW_UI_URL": "https://a.example/ml/", "PAIRFLOW_RAY_UI_URL": "https://a.example/ray"}
        monkeypatch.setattr("os.environ", {"PAIRFLOW_HOME": str(tmp_path), **within, **outside})
        settings = Settings.read()
        assert settings.mlflow_pages == "https://a.example/ml"
        assert settings.ray_pages == "https://a.example/ray"
        assert settings.job_environment()["PAIRFLOW_MLFLOW_UI_URL"] == "https://a.example/ml/"
        assert settings.job_environment()["MLFLOW_TRACKING_URI"] == "http://mlflow:5000/"
        monkeypatch.setattr("os.environ", {"PAIRFLOW_MLFLOW_UI_URL": "javascript:alert(1)"})
        with pytest.raises(SpecError, match="PAIRFLOW_MLFLOW_UI_URL"):
            Settings.read()

    def test_environment_of_the_user_wins(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        environment = {"PREFECT_HOME": "/mine", "PREFECT_API_URL": "http://server/api"}
        monkeypatch.setattr("os.environ", environment)
        prepare_environment(Settings(home=tmp_path))
        assert environment["PREFECT_HOME"] == "/mine"
        assert environment["PREFECT_API_URL"] == "http://server/api"
        assert environment["DO_NOT_TRACK"] == "true"


def _model(method: MethodName, mean: float, seed: int = 0) -> ModelScores:
    steps = [
        StepScores(
            num_steps=num_steps,
            num_network_calls=num_steps + 1,
            scores={"num_valid": Score(mean=mean * num_steps, std=0.5), NUM_SAMPLES: Score(mean=64, std=0)},
            samples_per_second=10.0,
        )
        for num_steps in (1, 2, 4)
    ]
    return ModelScores(
        method=method,
        label=METHODS[method].label,
        reference=None,
        training_seed=seed,
        checkpoint_sha256="e",
        training_fingerprint="a",
        evaluation_fingerprint="b",
        headline=Headline(name="num_valid", label="valid molecules", higher_is_better=True),
        facts={"training_molecules": 376.0},
        steps=tuple(steps),
        mlflow_run_id="c",
        mlflow_model_id="d",
    )


def _costs() -> tuple[MethodCost, ...]:
    return tuple(
        MethodCost(
            method=name,
            pairing=Score(mean=3, std=0),
            training=Score(mean=30, std=2),
            refinement=Score(mean=0 if method.refinement is None else 9, std=0),
        )
        for name, method in METHODS.items()
    )


class TestReport:
    def test_table_has_both_models_by_steps(self, capsys: pytest.CaptureFixture[str]) -> None:
        models = (_model("udlm", 3), _model("pairflow+dcd", 7))
        result = EvaluateResult(
            fingerprint="f",
            models=models,
            methods=over_seeds(models),
            costs=_costs(),
            table="t.json",
            figure="f.png",
            grid="g.png",
            trajectories="t.png",
            report="r.html",
            report_address="file:///r.html",
            skipped=False,
            seconds=1,
        )
        terminal.scores(result)
        said = capsys.readouterr().out
        assert "valid molecules of 64 samples by number of sampling steps (higher is better)" in " ".join(said.split())
        for shown in ("UDLM", "PairFlow + DCD", "12 ± 0.5", "28 ± 0.5", "f.png", "g.png", "2, 3, 5", "30 ± 2"):
            assert shown in said

    def test_scores_of_several_training_seeds(self) -> None:
        udlm, pairflow = over_seeds([_model("udlm", 3, 0), _model("pairflow", 2), _model("udlm", 5, 1)])
        assert (udlm.method, pairflow.method) == ("udlm", "pairflow")
        valid = udlm.steps[2].scores["num_valid"]  # of 12 and 20
        assert (valid.mean, valid.std) == (16, pytest.approx(8 / 2**0.5))
        assert pairflow.steps[2].scores["num_valid"] == Score(mean=8, std=0.5)  # one seed: over its trials

    def test_a_model_by_reference_is_a_line_of_its_own(self) -> None:
        names = {"label": "PairFlow (m@champion)", "reference": "m@champion"}
        champion = _model("pairflow", 7).model_copy(update=names)
        methods = over_seeds([_model("pairflow", 2), champion])
        assert [(each.label, each.reference) for each in methods] == [
            ("PairFlow", None),
            ("PairFlow (m@champion)", "m@champion"),
        ]
        assert [each.steps[0].scores["num_valid"].mean for each in methods] == [2, 7]

    def test_pictures_of_every_kind_of_data(self, tmp_path: Path) -> None:
        models = over_seeds([_model(name, 3 + place) for place, name in enumerate(METHODS)])
        comparison(models, _costs(), "nci", tmp_path / "comparison.png")
        for spec in (DatasetSpec(name="nci", max_rows=40), DatasetSpec(name="patches", max_rows=40)):
            train = load(spec, progress=False).part("train")
            noise = np.random.default_rng(0).integers(train.vocab_size, size=(4, train.length))
            samples = {"PairFlow": {1: noise, 4: train.tokens[:4]}}
            pictures.sample_grid(train, samples, tmp_path / f"{spec.name}.png")
        sizes = [path.stat().st_size for path in tmp_path.glob("*.png")]
        assert len(sizes) == 3
        assert min(sizes) > 10_000  # bytes: an empty canvas has fewer


def test_results_refuse_what_they_do_not_know() -> None:
    with pytest.raises(ValidationError):
        EvaluateResult.model_validate({"nosuch": 1})


def test_side_by_side_keeps_order_and_shares_cores() -> None:
    both_here = threading.Barrier(2, timeout=10)  # breaks unless they run at the same time

    def run(name: str) -> tuple[str, int]:
        both_here.wait()
        return name, here().num_sharing

    assert side_by_side(lambda: run("a"), lambda: run("b")) == (("a", 2), ("b", 2))
    assert here().num_sharing == 1


def test_side_by_side_no_more_than_there_is_room_for() -> None:
    running, seen = [0], []

    def run(name: str) -> tuple[str, int]:
        running[0] += 1
        seen.append(running[0])
        time.sleep(0.1)
        running[0] -= 1
        return name, here().num_sharing

    done = side_by_side(*(functools.partial(run, name) for name in "abcde"), at_most=2)
    assert done == tuple((name, 2) for name in "abcde")
    assert max(seen) == 2
    assert side_by_side() == ()


def test_side_by_side_stops_the_others_when_one_fails() -> None:
    def waits() -> bool:
        stopped = here().stopped
        assert stopped is not None
        return stopped.wait(10)

    def fails() -> bool:
        raise JobFailedError("this one")

    started = time.monotonic()
    with pytest.raises(JobFailedError, match="this one"):
        side_by_side(waits, fails)
    assert time.monotonic() - started < 9
