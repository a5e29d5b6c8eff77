"""The weights that come with the package: whole, small, described, and drawn from as they were trained for."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from flows import pretrained
from flows.command.app import app
from flows.home.settings import Settings
from flows.jobs import inputs
from flows.jobs.contestants import check_fits
from flows.lineage import models
from pairflow import datasets
from pairflow.checkpoint import load_model
from pairflow.checkpoint_files import read_state
from pairflow.data_card import DataCard
from pairflow.errors import CheckpointError
from pairflow.metrics.molecules import canonical
from pairflow.sampling import sample
from pairflow.spec import DatasetSpec, SamplingSpec

_MOST_BYTES = 6_000_000


@pytest.fixture(autouse=True)
def _own_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("os.environ", {"PAIRFLOW_HOME": str(tmp_path / "home"), "PAIRFLOW_THREADS_PER_JOB": "1"})


def test_which_there_are() -> None:
    assert pretrained.names() == ("digits", "nci", "qm9")


@pytest.mark.parametrize("name", ["digits", "nci", "qm9"])
def test_each_is_small_described_and_whole(name: str) -> None:
    folder = pretrained.folder(name)
    assert sum(path.stat().st_size for path in folder.iterdir()) < _MOST_BYTES
    loaded, card = load_model(folder), DataCard.read(folder)  # checked against its SHA-256
    assert card is not None
    assert card.dataset.name == name
    assert loaded.state["method"] == "assigned"
    page = (folder / "README.md").read_text(encoding="utf-8")
    for heading in ("## Samples of it", "## Scores", "## What made it", "## Licence"):
        assert heading in page
    assert f"pretrained:{name}" in page


def test_nci_and_digits_are_of_the_data_that_come_with_the_package() -> None:
    for name in ("digits", "nci"):
        found = models.resolve(f"pretrained:{name}", Settings.read())
        data = inputs.load(DatasetSpec.model_validate({"name": name}), Settings.read())
        card = DataCard.read(found.checkpoint)
        assert card is not None
        assert card.digest == data.train.digest
        check_fits(f"pretrained:{name}", found, read_state(found.checkpoint), data.facts)


def test_molecules_in_four_calls() -> None:
    """130 distinct valid of 256 were counted when the weights were added; 90 are five standard deviations fewer."""
    loaded, card = load_model(pretrained.folder("qm9"), device="cpu"), DataCard.read(pretrained.folder("qm9"))
    assert card is not None
    assert card.vocab is not None
    drawn = sample(
        loaded.model,
        loaded.process,
        SamplingSpec.suited_to(loaded.training.objective),
        num_samples=256,
        num_steps=4,
        length=loaded.length,
        progress=False,
    )
    assert drawn.network_calls == 4
    texts = datasets.Vocabulary(card.vocab).decode(drawn.tokens)
    assert len({each for text in texts if (each := canonical(text)) is not None}) >= 90


def test_the_command_needs_nothing_else(tmp_path: Path) -> None:
    out = tmp_path / "out.npy"
    said = CliRunner().invoke(
        app, ["sample", "--model", "pretrained:digits", "-n", "5", "--steps", "2", "--out", str(out), "--json"]
    )
    assert said.exit_code == 0, said.output
    assert json.loads(said.stdout.splitlines()[-1])["network_calls"] == 2  # no greedy end: an argmax is the last step
    assert np.load(out).shape == (5, 64)


def test_one_that_is_not_there_names_those_that_are() -> None:
    with pytest.raises(CheckpointError, match="no pretrained model 'mnist': expected one of digits, nci, qm9"):
        models.resolve("pretrained:mnist", Settings.read())
    with pytest.raises(CheckpointError, match="expected one of digits, nci, qm9"):
        models.for_job("pretrained:mnist")
    assert models.for_job("pretrained:qm9") == "pretrained:qm9"  # every machine of a cluster has it
