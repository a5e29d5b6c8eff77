"""`retrain` while nothing is champion: no repeated work, and what is new is compared with the challenger."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow import MlflowClient

from flows.results import RetrainResult

from .retrain_story import tell

pytestmark = pytest.mark.timeout(1500)  # of a machine that may have other work

_MODEL = {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "cond_size": 8}
_TRAINING = {"batch_size": 16, "warmup_steps": 0}


def _molecules(**changed: Any) -> dict[str, Any]:
    """A model that has learnt nothing: no sample is a valid molecule."""
    data = {"name": "nci", "max_rows": 60}
    training = {**_TRAINING, "num_steps": 1}
    rule = {"name": "empty", "steps": 1, "trials": 2, "num_samples": 4, "method": "udlm"}
    return {**rule, "dataset": data, "model": _MODEL, "training": training, **changed}


def _tokens(folder: Path, name: str, num_steps: int) -> dict[str, Any]:
    """Nearly all tokens are 3 of 0 … 4: every model is good for something, and a trained one for much more."""
    training = {**_TRAINING, "num_steps": num_steps, "learning_rate": 0.01, "ema_decay": 0.5}
    data = {"name": "tokens", "path": str(folder), "vocab_size": 5}
    rule = {"name": name, "steps": 2, "trials": 3, "num_samples": 16, "method": "udlm"}
    return {**rule, "dataset": data, "model": _MODEL, "training": training}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    random = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("rows")
    np.save(folder / "a.npy", np.where(random.random((40, 6)) < 0.9, 3, random.integers(5, size=(40, 6))).astype("u1"))
    return folder


@pytest.fixture(scope="module")
def story(
    cli_environment: dict[str, str], nursery_address: Path, tmp_path_factory: pytest.TempPathFactory, folder: Path
) -> dict[str, RetrainResult]:
    more = {"name": "nci", "max_rows": 70}
    steps = {
        "first": _molecules(),
        "again": _molecules(),
        "more data": _molecules(dataset=more),
        "more data again": _molecules(dataset=more),
        "more steps": _molecules(dataset=more, steps=2),
        "good": _tokens(folder, "unseated", 60),
        "the good one is taken out of service": {"unseat": "pairflow-unseated"},
        "worse": _tokens(folder, "unseated", 1),
        "worse again": _tokens(folder, "unseated", 1),
        "bad": _tokens(folder, "seated", 1),
        "the bad one is taken out of service": {"unseat": "pairflow-seated"},
        "better": _tokens(folder, "seated", 60),
    }
    told = tell([*steps.values()], cli_environment, nursery_address, tmp_path_factory.mktemp("story"))
    names = [name for name, step in steps.items() if "unseat" not in step]
    return dict(zip(names, map(RetrainResult.model_validate_json, told), strict=True))


def test_decisions(story: dict[str, RetrainResult]) -> None:
    assert {name: (each.outcome, each.candidate, each.champion) for name, each in story.items()} == {
        "first": ("challenger", 1, None),
        "again": ("skipped", None, None),
        "more data": ("challenger", 2, None),
        "more data again": ("skipped", None, None),
        "more steps": ("challenger", 2, None),
        "good": ("first", 1, 1),
        "worse": ("challenger", 2, 1),
        "worse again": ("skipped", None, 1),
        "bad": ("first", 1, 1),
        "better": ("first", 2, 2),
    }


def test_sentences(story: dict[str, RetrainResult]) -> None:
    assert story["again"].sentence.startswith("version 1 stays challenger, and nothing is champion of pairflow-empty:")
    assert "57 training rows" in story["again"].sentence
    assert story["more data"].sentence.startswith(
        "Version 2 is the challenger after version 1, and nothing is champion"
    )
    assert "is 0 against the challenger's 0" in story["more data"].sentence
    assert story["more data again"].sentence.startswith("version 2 stays challenger")
    assert story["more steps"].sentence.startswith("Version 2 is a challenger, and nothing is champion")
    assert story["worse"].sentence.startswith("Version 1, the challenger so far, is the first champion")
    assert "a challenger to version 1, the champion" in story["worse again"].sentence
    assert story["better"].sentence.startswith("Version 2 is the first champion of pairflow-seated: marginal total")


def test_both_models_were_measured(story: dict[str, RetrainResult]) -> None:
    def labels(name: str) -> list[str]:
        evaluation = story[name].evaluation
        assert evaluation is not None
        return [each.label for each in evaluation.models]

    assert labels("first") == ["UDLM"]
    assert labels("more data") == ["UDLM", "UDLM (pairflow-empty@challenger)"]
    assert labels("more steps") == ["UDLM"]  # the challenger itself, measured anew
    assert labels("worse") == ["UDLM", "UDLM (pairflow-unseated@challenger)"]


def test_the_registry(home: Path, story: dict[str, RetrainResult]) -> None:
    client = MlflowClient(f"sqlite:///{home}/mlflow/mlflow.db")
    aliases = client.get_registered_model("pairflow-empty").aliases
    assert {alias: int(number) for alias, number in aliases.items()} == {"challenger": 2}
    page = client.get_model_version("pairflow-empty", "2").description
    assert "Trained because there is no champion yet, and data and settings are those of version 2" in page
