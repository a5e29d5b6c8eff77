"""`pairflow presets`, `token` and `--version`."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import pairflow
from flows.command.app import app
from flows.parameters import TrainParameters
from flows.recipes.changes import with_assignments
from pairflow.errors import SpecError
from pairflow.presets import PRESETS, Preset, preset
from pairflow.spec import DatasetSpec


def _said(*words: str) -> str:
    done = CliRunner().invoke(app, words, env={"COLUMNS": "80"})
    assert done.exit_code == 0, done.output
    return done.stdout


def test_presets_and_what_they_are_for() -> None:
    assert json.loads(_said("presets", "--json")) == {name: list(of_data) for name, of_data in PRESETS.items()}
    shown = _said("presets")
    assert all(name in shown for name in (*PRESETS, "zinc-250k"))
    assert max(map(len, shown.splitlines())) <= 80


def test_all_settings_of_a_preset() -> None:
    words = ("presets", "--preset", "laptop", "--dataset", "qm9")
    document = json.loads(_said(*words, "--json"))
    assert Preset.model_validate(document["settings"]) == preset("laptop", "qm9")
    shown = {
        line.split("│")[1].strip(): line.split("│")[2].strip() for line in _said(*words).splitlines() if "│" in line
    }
    assert shown["training.num_steps"] == "2600"
    assert shown["evaluation.steps"] == "[1, 2, 4, 8, 16, 32]"
    assert "training.process" not in shown  # the method's


def test_a_preset_without_its_dataset_is_refused() -> None:
    done = CliRunner().invoke(app, ["presets", "--preset", "demo"])
    assert isinstance(done.exception, SpecError)
    assert "--dataset" in str(done.exception)


@pytest.mark.parametrize(
    ("wrong", "right"),
    [("training.num_step", "training.num_steps"), ("trainning.batch_size", "training.batch_size")],
)
def test_a_setting_nearly_right_is_named(wrong: str, right: str) -> None:
    parameters = TrainParameters(dataset=DatasetSpec(name="nci"))
    with pytest.raises(SpecError, match=rf"{wrong}: there is no such setting; did you mean {right}\?"):
        with_assignments(parameters, {wrong: 50})


def test_version() -> None:
    assert _said("--version") == f"pairflow {pairflow.__version__}\n"


def test_token_is_the_one_of_this_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAIRFLOW_HOME", str(tmp_path))
    said = _said("token").strip()
    assert said == (tmp_path / "ray" / "token").read_text()
    assert len(said) == 64
    assert _said("token").strip() == said
