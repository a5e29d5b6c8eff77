"""Noise of the data's marginals, said once of the pairs: models are trained with it, and what does not fit is named."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import storage
from flows.cluster.protocol import JobContext
from flows.command.app import app
from flows.home.settings import Settings
from flows.jobs import train
from flows.parameters import PipelineParameters, StudyParameters, TrainParameters
from flows.recipes.changes import resolve, with_assignments
from flows.recipes.methods import METHODS, base_names
from flows.requests import TrainRequest
from pairflow.checkpoint import load_model
from pairflow.checkpoint_files import read_state
from pairflow.coupling import couple
from pairflow.datasets import load
from pairflow.errors import SpecError
from pairflow.marginals import marginals
from pairflow.processes import MarginalProcess
from pairflow.spec import CouplingSpec, DatasetSpec, TrainingSpec

from .conftest import Cli

_CONTEXT = JobContext(submission_id=None, flow_run_id="1")
_DIGITS = DatasetSpec(name="digits", max_rows=60)
_MARGINAL = {"assignment.noise": "marginal"}
_TINY = {"training.num_steps": 4, "training.batch_size": 8, "model.hidden_size": 8}


@pytest.fixture(scope="module", autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("home")
        # Whole, as a job and a command set variables of this process.
        own = {"PAIRFLOW_HOME": str(folder), "PAIRFLOW_STORE": str(folder / "store")}
        patch.setattr("os.environ", {**os.environ, **own})
        yield


def _pairs(cli: Cli, noise: str) -> str:
    options = ["--dataset", "digits", "--max-rows", 60, "--coupling", "assignment", "--noise", noise, "--json"]
    done = cli("pair", *options, "--store", Settings.read().store)
    assert done.code == 0, done.stderr
    url: str = json.loads(done.last_line)["url"]
    return url


def _train(method: str, assignments: dict[str, Any], pairs: str | None = None) -> Path:
    asked = TrainParameters.model_validate({"dataset": _DIGITS, "method": method, "pairs": pairs})
    request = TrainRequest.of(with_assignments(asked, _TINY | assignments))
    return Path(train.run(request, _CONTEXT).checkpoint)


@pytest.fixture(scope="module")
def marginal(_own_home: None, cli: Cli) -> str:
    return _pairs(cli, "marginal")


def test_pairs_say_their_noise_and_models_have_it(marginal: str) -> None:
    pairs = storage.open_pairs(marginal)
    assert pairs.manifest.spec["noise"] == "marginal"
    rows = load(_DIGITS, progress=False).part("train").tokens
    expected = couple(rows, vocab_size=2, spec=CouplingSpec(kind="assignment", noise="marginal"))
    np.testing.assert_array_equal(np.asarray(pairs.source)[np.argsort(pairs.sample_id)], expected)
    # Pixels that are black in every digit are black in almost every source.
    always = (rows == 0).all(axis=0)
    assert always.sum() > 3
    assert np.asarray(pairs.source)[:, always].mean() < 0.03
    checkpoint = _train("assigned", _MARGINAL)  # finds them by their settings
    loaded = load_model(checkpoint, device="cpu")
    assert isinstance(loaded.process, MarginalProcess)
    np.testing.assert_array_equal(loaded.process.tensors["marginal"], marginals(rows, 2))
    named = _train("assigned", _MARGINAL, marginal)
    assert read_state(named)["sha256"] == read_state(checkpoint)["sha256"]


def test_such_a_model_is_sampled_by_the_command(marginal: str, tmp_path: Path) -> None:
    arguments = ["sample", "--model", str(_train("assigned", _MARGINAL)), "-n", "4", "--out", str(tmp_path / "x.png")]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert (tmp_path / "x.png").stat().st_size > 500


def test_pairs_and_settings_of_two_noises_are_not_mixed(marginal: str, cli: Cli) -> None:
    with pytest.raises(SpecError, match=r"sources of marginal noise, .* with uniform noise; train on them with method"):
        _train("assigned", {}, marginal)
    with pytest.raises(SpecError, match=r"sources of marginal noise, .* with uniform noise"):
        _train("pairflow", {}, marginal)
    with pytest.raises(SpecError, match=r"sources of uniform noise, .* with marginal noise; .* without that"):
        _train("assigned", _MARGINAL, _pairs(cli, "uniform"))


@pytest.mark.parametrize("method", ["assigned+dcd", "assigned+redi"])
def test_refinements_are_refused_before_anything_starts(method: str) -> None:
    asked = StudyParameters.model_validate({"dataset": {"name": "digits"}, "methods": ["udlm", method]})
    changed = with_assignments(asked, _MARGINAL)
    with pytest.raises(SpecError, match=rf"method '{method[:9]}.{method[9:]}': .* needs a model of uniform noise"):
        resolve(changed)
    resolve(with_assignments(asked.model_copy(update={"methods": ("udlm", "assigned")}), _MARGINAL))


def test_a_model_that_does_not_say_its_method_is_taken_for_the_one_that_has_such_pairs() -> None:
    training = TrainingSpec(process="marginal")
    assert [name for name in base_names() if METHODS[name].may_have_trained(training)] == ["assigned"]


def test_other_methods_stay_as_they_are() -> None:
    asked = with_assignments(PipelineParameters.model_validate({"dataset": {"name": "digits"}}), _MARGINAL)
    settings = resolve(asked)
    found = {name: METHODS[name].training(settings).process for name in ("mdlm", "udlm", "pairflow", "assigned")}
    assert found == {"mdlm": "absorbing", "udlm": "uniform", "pairflow": "uniform", "assigned": "marginal"}
