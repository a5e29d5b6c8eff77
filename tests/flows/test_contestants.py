"""Models that are evaluated by reference: what they are called, what is found again, and what is refused."""

import json
import shutil
from pathlib import Path
from statistics import fmean

import pytest
from pydantic import ValidationError

from flows.cluster.protocol import JobContext
from flows.jobs import evaluate
from flows.parameters import EvaluateParameters
from flows.requests import EvaluateRequest
from flows.results import EvaluateResult
from pairflow.errors import CheckpointError, SpecError
from pairflow.spec import DatasetSpec, EvaluationSpec

from .model_files import trained

_CONTEXT = JobContext(submission_id=None, flow_run_id="1")
_EVALUATION = EvaluationSpec(steps=(1, 2), num_samples=6, num_trials=3)


@pytest.fixture(scope="module")
def spec(tokens_file: Path) -> DatasetSpec:
    return DatasetSpec(name="tokens", path=str(tokens_file), vocab_size=5)


@pytest.fixture(scope="module")
def model(spec: DatasetSpec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(spec, tmp_path_factory.mktemp("model"))[0]


@pytest.fixture
def own_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("PAIRFLOW_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PAIRFLOW_THREADS_PER_JOB", "1")
    for name in ("PAIRFLOW_STORE", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def _evaluate(spec: DatasetSpec, *models: object) -> EvaluateResult:
    named = tuple(map(str, models))
    parameters = EvaluateParameters(dataset=spec, methods=(), models=named, evaluation=_EVALUATION)
    return evaluate.run(EvaluateRequest.of(parameters), _CONTEXT)


def test_equal_weights_get_equal_scores_under_their_own_names(spec: DatasetSpec, model: Path, own_home: Path) -> None:
    copy = own_home / "copy" / "checkpoints" / model.name
    shutil.copytree(model, copy)
    result = _evaluate(spec, model, copy, model)
    first, second = result.models
    assert [each.label for each in result.methods] == [
        f"UDLM ({model.parent.parent.name}/{model.name})",
        f"UDLM (copy/{model.name})",
    ]
    assert (first.reference, second.reference) == (str(model), str(copy))
    assert first.steps == second.steps
    assert first.evaluation_fingerprint == second.evaluation_fingerprint
    assert result.costs == ()
    for step in first.steps:
        for score in step.scores.values():
            assert len(score.trials) == 3
            assert score.mean == pytest.approx(fmean(score.trials))
    assert Path(result.figure).read_bytes().startswith(b"\x89PNG")
    assert not result.skipped
    again = _evaluate(spec, model, copy)
    assert again.skipped
    assert again.models == result.models


def test_models_of_other_data(spec: DatasetSpec, model: Path, own_home: Path) -> None:
    digits = DatasetSpec(name="digits", max_rows=40)
    with pytest.raises(SpecError, match=rf"{model.name}.*on digits/train: its vocab_size is 5, that of the data is 2"):
        _evaluate(digits, model)
    words = own_home / "words.json"
    words.write_text(json.dumps(list("abcde")))
    with pytest.raises(SpecError, match="only the data has words"):
        _evaluate(spec.model_copy(update={"vocab_size": None, "vocab_path": str(words)}), model)
    lettered, _ = trained(spec.model_copy(update={"vocab_size": None, "vocab_path": str(words)}), own_home / "lettered")
    words.write_text(json.dumps(list("abxde")))
    with pytest.raises(SpecError, match="token 2 is 'c' to the model and 'x' in the data"):
        _evaluate(spec.model_copy(update={"vocab_size": None, "vocab_path": str(words)}), lettered)


def test_whose_method_nobody_knows(spec: DatasetSpec, model: Path, own_home: Path) -> None:
    further = own_home / "further" / model.name
    shutil.copytree(model, further)
    state = json.loads((further / "state.json").read_text())
    (further / "state.json").write_text(json.dumps(state | {"initial_sha256": "0" * 64}))
    with pytest.raises(CheckpointError, match="does not say by which method"):
        _evaluate(spec, further)
    (further / "state.json").write_text(json.dumps(state | {"training": None}))
    with pytest.raises(CheckpointError, match=f"{model.name}: its state describes no training"):
        _evaluate(spec, further)


@pytest.mark.usefixtures("own_home")
def test_no_such_model(spec: DatasetSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for reference in ("nosuch", "../x", "abcdef0"):
        with pytest.raises(CheckpointError, match="no model"):
            _evaluate(spec, reference)


def test_nothing_to_evaluate(spec: DatasetSpec) -> None:
    with pytest.raises(ValidationError, match="nothing to evaluate"):
        EvaluateParameters(dataset=spec, methods=())
    with pytest.raises(ValidationError, match="at least 1 character"):
        EvaluateParameters(dataset=spec, models=("",))
