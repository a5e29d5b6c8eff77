"""The README's commands and snippets, read out of its text and run in its order, in an empty home, at a tiny size."""

import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from flows.command.app import app

from .conftest import Cli

pytestmark = [pytest.mark.story, pytest.mark.timeout(900)]

_README = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
_LINES = [
    line.partition(" #")[0].strip()
    for language, text in _FENCE.findall(_README)
    if not language
    for line in text.splitlines()
]
_COMMANDS = [shlex.split(line)[1:] for line in _LINES if line.startswith("pairflow ")]
_SNIPPETS = {
    next(word for word in ("couple", "mlflow") if word in text): text
    for language, text in _FENCE.findall(_README)
    if language == "python"
}
_USE_IT = _COMMANDS[: next(i for i, words in enumerate(_COMMANDS) if words[0] == "up")]

# What makes minutes of seconds; everything else is as it stands there.
_FEW_ROWS = ["--max-rows", "60"]
_SMALL = [
    *("--set", "training.num_steps=4", "--set", "training.batch_size=16", "--set", "model.hidden_size=16"),
    *("--set", "model.num_layers=1", "--set", "model.num_heads=2"),
]
_BRIEF = ["--set", "evaluation.steps=[1,2]", "--set", "evaluation.num_samples=8", "--set", "evaluation.num_trials=2"]
_TINY = {
    "pair": _FEW_ROWS,
    "train": _FEW_ROWS + _SMALL,
    "distill": [*_FEW_ROWS, *_SMALL, "--set", "distillation.num_steps=2", "--set", "distillation.batch_size=8"],
    "evaluate": [*_FEW_ROWS, *_SMALL, *_BRIEF, "--methods", "pairflow"],  # the other model of these is not trained yet
    "pipeline": _FEW_ROWS + _SMALL + _BRIEF,
    "study": [*_FEW_ROWS, *_SMALL, *_BRIEF, "--methods", "udlm,pairflow"],
    "retrain": [*_FEW_ROWS, *_SMALL, "--trials", "2", "--num-samples", "8"],
}
_OF_A_MODEL = ("sample", "register", "lineage")


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The variables of somebody with an empty home."""
    return {"PAIRFLOW_HOME": str(tmp_path_factory.mktemp("newcomer")), "PAIRFLOW_JOBS_AT_ONCE": "1"}


@pytest.fixture(scope="module")
def known() -> dict[str, str]:
    """What REF stands for: what the commands before have printed last."""
    return {}


@pytest.mark.parametrize("words", _USE_IT, ids=lambda words: words[0])
def test_commands(
    cli: Cli,
    newcomer: dict[str, str],
    known: dict[str, str],
    words: list[str],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    name = words[0]
    reference = known.get("train" if name in _OF_A_MODEL else "pair", "")
    out = tmp_path_factory.getbasetemp()
    given = [{"REF": reference}.get(each, str(out / each) if each.endswith(".smi") else each) for each in words]
    done = cli(*given, *_TINY.get(name, ()), **newcomer)
    assert done.code == 0, done.stderr
    assert "Traceback" not in done.stderr
    known[name] = done.last_line
    assert done.stdout.strip()


def test_they_left_what_they_say(known: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> None:
    assert len((tmp_path_factory.getbasetemp() / "samples.smi").read_text().splitlines()) == 16
    assert known["pair"] != known["export"]
    assert known["retrain"].startswith("models:/pairflow-nci@champion is version ")


def test_snippet_of_a_registered_model(
    newcomer: dict[str, str], known: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "retrain" in known
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{newcomer['PAIRFLOW_HOME']}/mlflow/mlflow.db")
    said = _SNIPPETS["mlflow"].strip().replace("mlflow.pyfunc.load", "table = mlflow.pyfunc.load")
    within: dict[str, Any] = {}
    exec(said, within)  # noqa: S102 - our own page
    assert len(within["table"]["smiles"]) == 8


def test_snippet_of_a_notebook(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("tokens.npy", np.random.default_rng(0).integers(43, size=(50, 6)))
    within: dict[str, Any] = {}
    exec(_SNIPPETS["couple"], within)  # noqa: S102 - our own page
    assert within["source"].shape == (50, 6)
    assert (within["source"] != within["target"]).any()


@pytest.mark.parametrize("words", _COMMANDS, ids=" ".join)
def test_every_command_is_there(words: list[str]) -> None:
    """Also those that take a service or hours: names and options are known."""
    known = {option for each in words if (option := each.partition("=")[0]).startswith("-")}
    page = CliRunner().invoke(app, [words[0], "--help"], env={"COLUMNS": "400"})
    assert page.exit_code == 0
    assert {option for option in known if not re.search(rf"(?<![\w-]){option}(?![\w-])", page.output)} == set()
