"""Checkpoints that somebody has damaged: a PairFlowError, or a model whose weights are those that were written."""

import contextlib
import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pairflow.checkpoint import load_model, read, read_state
from pairflow.errors import PairFlowError
from pairflow.spec import ModelSpec, TrainingSpec
from pairflow.training import fit

from .damage import altered, damaged, fuzzed


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints")
    model = ModelSpec(hidden_size=8, num_layers=1, num_heads=1, cond_size=8)
    training = TrainingSpec(num_steps=2, batch_size=4, coupling="independent")
    rows = (np.arange(24).reshape(8, 3) % 5).astype(np.uint8)
    return fit(model, training, rows, vocab_size=5, checkpoint_dir=folder, progress=False).checkpoint


def _use(folder: Path, sound: Path) -> None:
    with contextlib.suppress(PairFlowError):
        loaded = load_model(folder, device="cpu")
        written = load_model(sound, device="cpu").model.state_dict()
        for name, weight in loaded.model.state_dict().items():
            assert torch.equal(weight, written[name])
    for action in (read, read_state):
        with contextlib.suppress(PairFlowError):
            action(folder)


@pytest.mark.parametrize("name", ["state.json", "tensors.safetensors"])
@fuzzed
@given(data=st.data(), agree=st.booleans())
def test_damaged_files(
    sound: Path, tmp_path_factory: pytest.TempPathFactory, name: str, data: st.DataObject, agree: bool
) -> None:
    folder = tmp_path_factory.mktemp("copy") / sound.name
    shutil.copytree(sound, folder)
    (folder / name).write_bytes(data.draw(damaged((folder / name).read_bytes())))
    with contextlib.suppress(PairFlowError):
        load_model(folder, device="cpu")
    if name == "tensors.safetensors" and agree:  # so that more than the hash has to notice
        state = json.loads((folder / "state.json").read_text())
        state["sha256"] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        (folder / "state.json").write_text(json.dumps(state))
        with contextlib.suppress(PairFlowError):
            load_model(folder, device="cpu")
    else:
        _use(folder, sound)
    shutil.rmtree(folder.parent)


@fuzzed
@given(data=st.data())
def test_states_that_say_something_else(
    sound: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("copy") / sound.name
    shutil.copytree(sound, folder)
    state = data.draw(altered(json.loads((folder / "state.json").read_text())))
    (folder / "state.json").write_text(json.dumps(state))
    _use(folder, sound)
    shutil.rmtree(folder.parent)
