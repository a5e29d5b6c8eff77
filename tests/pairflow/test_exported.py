"""Models in folders of their own: what a hub takes, and what loads from it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from pairflow import exported
from pairflow.checkpoint import load_model
from pairflow.checkpoint_files import is_whole, read_state
from pairflow.errors import CheckpointError, SpecError
from pairflow.exported import export
from pairflow.sampling import sample
from pairflow.spec import ModelSpec, SamplingSpec, TrainingSpec
from pairflow.training import fit


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a tiny training, three steps long, so that averaged and last weights differ."""
    tokens = np.random.default_rng(0).integers(0, 5, (30, 6)).astype(np.uint8)
    spec = TrainingSpec(coupling="independent", num_steps=3, batch_size=8, learning_rate=0.01, warmup_steps=1)
    model = ModelSpec(hidden_size=16, num_layers=1, num_heads=2)
    folder = tmp_path_factory.mktemp("trained")
    return fit(model, spec, tokens, vocab_size=5, checkpoint_dir=folder, progress=False).checkpoint


def _drawn(path: Path) -> np.ndarray:
    loaded = load_model(path, device="cpu")
    spec = SamplingSpec()
    return sample(
        loaded.model, loaded.process, spec, num_samples=20, num_steps=3, length=loaded.length, seed=4, progress=False
    ).tokens


def test_it_samples_as_the_checkpoint_does(checkpoint: Path, tmp_path: Path) -> None:
    export(checkpoint, tmp_path / "hub", page="# A model\n")
    assert {each.name for each in (tmp_path / "hub").iterdir()} == {"model.safetensors", "config.json", "README.md"}
    assert (tmp_path / "hub" / "README.md").read_text() == "# A model\n"
    np.testing.assert_array_equal(_drawn(tmp_path / "hub"), _drawn(checkpoint))
    # With plain safetensors: the averaged weights, by the network's own names.
    weights, own = load_file(tmp_path / "hub" / "model.safetensors"), load_model(checkpoint, device="cpu").model
    assert weights.keys() == own.state_dict().keys()
    assert all(torch.equal(weights[name], value) for name, value in own.state_dict().items())
    assert is_whole(tmp_path / "hub")
    assert read_state(tmp_path / "hub")["exported_from"] == read_state(checkpoint)["sha256"]


def test_a_copy_of_a_copy(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "hub").mkdir()  # empty, as somebody made it
    export(checkpoint, tmp_path / "hub", page="")
    export(tmp_path / "hub", tmp_path / "again", page="")
    names = ("model.safetensors",)
    assert [(tmp_path / "again" / name).read_bytes() for name in names] == [
        (tmp_path / "hub" / name).read_bytes() for name in names
    ]


def test_nothing_of_anybodys_is_written_over(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub" / "notes.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name in ("hub", "file"):
        with pytest.raises(SpecError, match="something is there already; name a folder that is new or empty"):
            export(checkpoint, tmp_path / name, page="")
    with pytest.raises(SpecError, match=r"cannot be written: .*; name a folder that can be"):
        export(checkpoint, tmp_path / "file" / "below", page="")
    assert sorted(each.name for each in tmp_path.rglob("*")) == ["file", "hub", "notes.txt"]


def test_the_last_weights_are_not_there(checkpoint: Path, tmp_path: Path) -> None:
    export(checkpoint, tmp_path / "hub", page="")
    with pytest.raises(CheckpointError, match="holds the averaged weights alone; load it with ema=True"):
        load_model(tmp_path / "hub", ema=False)


def test_what_is_damaged_is_named(checkpoint: Path, tmp_path: Path) -> None:
    export(checkpoint, tmp_path / "hub", page="")
    save_file({"a": torch.zeros(1)}, tmp_path / "hub" / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"model.safetensors is damaged.*config.json says.*; export it again"):
        load_model(tmp_path / "hub")
    assert not is_whole(tmp_path / "hub")


def test_somebody_elses_folder(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(CheckpointError, match="format_version is None, this release reads 1"):
        load_model(tmp_path)


def test_a_full_disk_leaves_nothing(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(tensors: object, path: Path, metadata: object) -> None:
        path.write_bytes(b"half")
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(exported, "save_file", full)
    with pytest.raises(SpecError, match=r"cannot be written: .*No space left"):
        export(checkpoint, tmp_path / "hub", page="")
    assert not list(tmp_path.iterdir())
