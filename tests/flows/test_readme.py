"""Commands and snippets of the README and the tutorial, read out of their text and run in its order, at a tiny size.

They begin in an empty home. Commands of the how-to pages are known; these take a service or data of one's own.
"""

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

_ROOT = Path(__file__).resolve().parents[2]
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
_COMMAND = re.compile(r"(?:[A-Z_]+=(?:'[^']*'|\S*) )*pairflow (.*)")


def _blocks(page: Path, language: str) -> list[str]:
    return [text for of, text in _FENCE.findall(page.read_text(encoding="utf-8")) if of == language]


def _commands(page: Path) -> list[list[str]]:
    lines = [line.partition(" #")[0].strip() for text in _blocks(page, "") for line in text.splitlines()]
    return [shlex.split(match[1]) for line in lines if (match := _COMMAND.fullmatch(line))]


_README, _TUTORIAL = _ROOT / "README.md", _ROOT / "docs" / "tutorial.md"
_COMMANDS = _commands(_README)
_SNIPPETS = {
    next(word for word in ("couple", "mlflow", "molecules") if word in text): text
    for page in (_README, _TUTORIAL)
    for text in _blocks(page, "python")
}
_USE_IT = _COMMANDS[: next(i for i, words in enumerate(_COMMANDS) if words[0] == "up")]
_LEARN_IT = _commands(_TUTORIAL)
_DO_IT = [words for page in sorted((_ROOT / "docs" / "howto").glob("*.md")) for words in _commands(page)]

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
_THREE = _TINY["distill"] + _BRIEF  # the tutorial has made the three models that it compares, by these settings
_OF_A_MODEL = ("sample", "export-model", "register", "lineage")


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The variables of somebody with an empty home."""
    return {"PAIRFLOW_HOME": str(tmp_path_factory.mktemp("newcomer")), "PAIRFLOW_JOBS_AT_ONCE": "1"}


@pytest.fixture(scope="module")
def known() -> dict[str, str]:
    """What REF stands for: what the commands before have printed last."""
    return {}


def _run(
    cli: Cli, words: list[str], tiny: dict[str, list[str]], newcomer: dict[str, str], known: dict[str, str], out: Path
) -> None:
    """One command, its files in a folder of the test's; what it prints last is what REF is in the next ones."""
    name = words[0]
    reference = known.get("train" if name in _OF_A_MODEL else "pair", "")
    given = [
        {"REF": reference}.get(each, str(out / each) if each.endswith((".smi", ".png", "my-model")) else each)
        for each in words
    ]
    done = cli(*given, *tiny.get(name, ()), **newcomer)
    assert done.code == 0, done.stderr
    assert "Traceback" not in done.stderr
    known[name] = done.last_line
    assert done.stdout.strip()


@pytest.mark.parametrize("words", _USE_IT, ids=lambda words: words[0])
def test_commands(
    cli: Cli,
    newcomer: dict[str, str],
    known: dict[str, str],
    words: list[str],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    _run(cli, words, _TINY, newcomer, known, tmp_path_factory.getbasetemp())


def test_they_left_what_they_say(known: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> None:
    assert len((tmp_path_factory.getbasetemp() / "samples.smi").read_text().splitlines()) == 16
    assert known["export-model"].endswith("/my-model")
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


def test_snippet_of_the_tutorial(
    newcomer: dict[str, str],
    known: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    monkeypatch.setenv("PAIRFLOW_HOME", newcomer["PAIRFLOW_HOME"])  # molecules are prepared there already
    monkeypatch.chdir(tmp_path_factory.getbasetemp())
    text, changed = re.subn(r"max_rows=5000", "max_rows=80", _SNIPPETS["molecules"])
    assert changed == 1
    exec(text, {})  # noqa: S102 - our own page
    assert len(Path("molecules.smi").read_text().splitlines()) == 80
    known.clear()


@pytest.mark.parametrize("words", _LEARN_IT, ids=" ".join)
def test_commands_of_the_tutorial(
    cli: Cli,
    newcomer: dict[str, str],
    known: dict[str, str],
    words: list[str],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    _run(cli, words, _TINY | {"evaluate": _THREE}, newcomer, known, tmp_path_factory.getbasetemp())


def test_the_tutorial_leaves_what_it_says(tmp_path_factory: pytest.TempPathFactory) -> None:
    assert len((tmp_path_factory.getbasetemp() / "new.smi").read_text().splitlines()) == 16


def test_how_to_pages_have_commands() -> None:
    assert len(_DO_IT) > 5


@pytest.mark.parametrize("words", [*_COMMANDS, *_LEARN_IT, *_DO_IT], ids=" ".join)
def test_every_command_is_there(words: list[str]) -> None:
    """Also those that take a service or hours: names and options are known."""
    known = {option for each in words if (option := each.partition("=")[0]).startswith("-")}
    page = CliRunner().invoke(app, [words[0], "--help"], env={"COLUMNS": "400"})
    assert page.exit_code == 0
    assert {option for option in known if not re.search(rf"(?<![\w-]){option}(?![\w-])", page.output)} == set()
