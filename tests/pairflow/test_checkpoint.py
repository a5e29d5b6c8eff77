"""Checkpoints: what they hold, and damaged, foreign or missing ones, each named."""

import errno
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from pairflow import checkpoint
from pairflow.checkpoint import load_model
from pairflow.errors import CheckpointError
from pairflow.spec import ModelSpec, TrainingSpec
from pairflow.training import fit

VOCAB_SIZE, LENGTH = 5, 6
MODEL = ModelSpec(hidden_size=16, num_layers=1, num_heads=2, cond_size=8)
SPEC = TrainingSpec(num_steps=12, batch_size=8, warmup_steps=3, learning_rate=1e-2)
TARGET = np.random.default_rng(0).integers(VOCAB_SIZE, size=(20, LENGTH), dtype=np.uint8)
SOURCE = np.random.default_rng(1).integers(VOCAB_SIZE, size=(20, LENGTH), dtype=np.uint8)


def train(directory, target=TARGET, source=SOURCE, *, model=MODEL, spec=SPEC, **options):
    settings = {"vocab_size": VOCAB_SIZE, "checkpoint_every": 5, "device": "cpu", "progress": False}
    return fit(model, spec, target, source, checkpoint_dir=directory, **{**settings, **options})


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """(folder, result) of one undisturbed run; do not write to it."""
    directory = tmp_path_factory.mktemp("finished")
    return directory, train(directory)


def test_load_model_gives_the_averaged_weights_and_what_they_were_trained_on(finished):
    for path in (finished[0], finished[1].checkpoint, str(finished[0])):
        loaded = load_model(path, device="cpu")
        assert (loaded.vocab_size, loaded.length, loaded.image_shape) == (VOCAB_SIZE, LENGTH, None)
        assert (loaded.model_spec, loaded.training, loaded.step) == (MODEL, SPEC, 12)
        assert not loaded.model.training
    tensors = load_file(finished[1].checkpoint / "tensors.safetensors")
    last = load_model(finished[0], device="cpu", ema=False)
    assert torch.equal(loaded.model.state_dict()["head.weight"], tensors["ema.head.weight"])
    assert torch.equal(last.model.state_dict()["head.weight"], tensors["model.head.weight"])
    assert not torch.equal(tensors["ema.head.weight"], tensors["model.head.weight"])


@pytest.fixture
def copy(tmp_path, finished):
    """A copy of the finished run, to damage."""
    shutil.copytree(finished[0], tmp_path / "copy")
    return tmp_path / "copy"


def test_one_flipped_bit_is_found(copy):
    path = copy / "step-00000012" / "tensors.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    for use in (lambda: load_model(copy), lambda: train(copy)):
        with pytest.raises(
            CheckpointError, match=r"step-00000012: tensors.safetensors is damaged: its SHA-256"
        ) as caught:
            use()
        assert "remove this folder to go on from step-00000010, the one before it" in str(caught.value)
    shutil.rmtree(path.parent)
    assert load_model(copy).step == 10
    (copy / "step-00000010" / "state.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"cannot read state.json: .*to start again: there is none before it"):
        train(copy)


def test_a_damaged_last_state_names_the_checkpoint_before_it_and_training_goes_on_from_there(copy, finished):
    (copy / "step-00000012" / "state.json").write_text("")
    with pytest.raises(CheckpointError, match=r"cannot read state.json: .*to go on from step-00000010, the one before"):
        train(copy)
    shutil.rmtree(copy / "step-00000012")
    expected, got = (
        load_file(path / "tensors.safetensors") for path in (finished[1].checkpoint, train(copy).checkpoint)
    )
    assert all(torch.equal(expected[name], got[name]) for name in expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path: path.write_text("{"), "cannot read state.json"),
        (lambda path: path.write_text("[]"), "format_version is None, this release reads 1"),
        (lambda path: path.unlink(), r"no checkpoint at .*step-00000012"),
        (lambda path: (path.parent / "tensors.safetensors").unlink(), "cannot read tensors.safetensors"),
        (lambda path: edit(path, format_version=9), "format_version is 9, this release reads 1"),
        (
            lambda path: edit(path, vocab_size=4),
            r"another architecture: tensor ema.embedding.weight is of shape \[5, 16\]",
        ),
        (lambda path: edit(path, model={"num_layers": 0}), "describes no model: num_layers"),
        (lambda path: edit(path, length=0), "describes no model"),
        (lambda path: edit(path, length=2**62), "describes no model: sizes that no memory holds"),
        (lambda path: edit(path, model=None), "describes no model"),
        (lambda path: drop(path, "training"), "has no field 'training'"),
    ],
)
def test_a_damaged_state_is_named(copy, change, message):
    change(copy / "step-00000012" / "state.json")
    with pytest.raises(CheckpointError, match=message):
        load_model(copy / "step-00000012", device="cpu")


def edit(path, **fields):
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def drop(path, field):
    state = json.loads(path.read_text())
    del state[field]
    path.write_text(json.dumps(state))


def test_tensors_of_another_architecture_are_named(copy):
    folder = copy / "step-00000012"
    tensors, state = checkpoint.read(folder)
    model = load_model(copy).model
    missing = {name: value for name, value in tensors.items() if name != "ema.head.bias"}
    with pytest.raises(CheckpointError, match=r"tensor ema.head.bias is missing, the model's has shape \[5\]"):
        checkpoint.load_weights(model, missing, "ema.", folder)
    with pytest.raises(CheckpointError, match=r"the model has no tensor ema.extra"):
        checkpoint.load_weights(model, {**tensors, "ema.extra": torch.zeros(1)}, "ema.", folder)
    del tensors["optimizer.exp_avg.head.bias"]
    save_file(tensors, folder / "tensors.safetensors")
    edit(folder / "state.json", sha256=checkpoint.file_sha256(folder / "tensors.safetensors"))
    with pytest.raises(CheckpointError, match=r"optimizer.exp_avg.head.bias is missing"):
        train(copy)
    assert state["step"] == 12


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"spec": SPEC.model_copy(update={"learning_rate": 0.5})}, "training.learning_rate is 0.01, expected 0.5"),
        ({"model": MODEL.model_copy(update={"cond_size": 16})}, "model.cond_size is 8, expected 16"),
        ({"vocab_size": 6}, "vocab_size is 5, expected 6"),
        ({"target": TARGET[:, :4], "source": SOURCE[:, :4]}, "length is 6, expected 4"),
        ({"target": TARGET[::-1]}, "data_sha256"),
        ({"source": TARGET}, "data_sha256"),
    ],
)
def test_a_foreign_checkpoint_is_refused_by_its_first_differing_field(finished, changes, field):
    with pytest.raises(CheckpointError, match=f"belongs to another run: its {field}"):
        train(finished[0], **changes)


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match=r"cannot write checkpoint .*file"):
        train(tmp_path / "file")


def test_no_checkpoint_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=f"no checkpoint at {tmp_path}"):
        load_model(tmp_path)


def test_folders_that_are_only_called_as_checkpoints_are_kept(tmp_path):
    """Another program's, one that holds somebody's notes, and one that is in the way."""
    foreign = tmp_path / "step-00000001" / "state.json"
    foreign.parent.mkdir()
    foreign.write_text('{"step": 1, "optimizer": "theirs"}')
    later = tmp_path / "step-00000099" / "state.json"
    later.parent.mkdir()
    later.write_text("{}")
    for step in (2, 3, 4, 5, 6):
        checkpoint.save(tmp_path, {}, {"step": step})
        if step == 3:
            (tmp_path / "step-00000003" / "notes.txt").write_text("the best one")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"step-{step:08}"
        for step in (1, 3, 5, 6, 99)  # 3 whole, for the notes in it
    ]
    assert checkpoint.read_state(tmp_path / "step-00000003")["step"] == 3
    with pytest.raises(CheckpointError, match=r"step-00000099: .*not all ours: move it away"):
        checkpoint.save(tmp_path, {}, {"step": 99})
    assert (foreign.read_text(), later.read_text()) == ('{"step": 1, "optimizer": "theirs"}', "{}")
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (SafetensorError("I/O error: No space left on device (os error 28)"), CheckpointError),
        (OSError(errno.ENOSPC, "No space left on device"), CheckpointError),
        (KeyboardInterrupt(), KeyboardInterrupt),
        (TypeError("not serializable"), TypeError),
    ],
)
def test_what_cannot_be_written_leaves_nothing(tmp_path, monkeypatch, error, raised):
    def full(tensors, path):
        path.write_bytes(b"half")
        raise error

    checkpoint.save(tmp_path, {}, {"step": 1})
    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(raised) as caught:
        checkpoint.save(tmp_path, {}, {"step": 2})
    if raised is CheckpointError:
        assert "cannot write checkpoint" in str(caught.value)
        assert "No space left" in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]


def test_what_killed_processes_left_is_swept(tmp_path):
    """Of this machine alone: elsewhere, and under the names of before, a number may be a living process's."""
    code = "import os, sys; from pairflow.checkpoint import _machine; print(_machine(), os.getpid())"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    machine, dead = told.stdout.split()
    swept = {f".{kind}-step-00000007-{machine}-{dead}" for kind in ("partial", "old")}
    kept = {
        f".partial-step-00000007-{machine}-{os.getppid()}",
        f".partial-step-00000007-{'0' * 12}-{dead}",
        f".partial-step-00000007-{dead}",
        f".notes-step-00000007-{machine}-{dead}",
    }
    for name in swept | kept:
        (tmp_path / name).mkdir()
        (tmp_path / name / "tensors.safetensors").write_bytes(b"half")
    checkpoint.save(tmp_path, {}, {"step": 8})
    assert {path.name for path in tmp_path.iterdir()} == kept | {"step-00000008"}
