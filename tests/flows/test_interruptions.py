"""Ctrl-C at any moment of a training, of every method: what follows ends with the weights of an undisturbed one."""

import functools
import gc
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from flows.parameters import DistillParameters
from flows.recipes.changes import resolve, with_assignments
from flows.recipes.methods import METHODS, Method
from pairflow.checkpoint import load_model
from pairflow.training import FitResult, fit

# Between `open` and its `with`, a Ctrl-C leaves a file to Python, which closes it as nobody refers to it, and says so.
pytestmark = pytest.mark.filterwarnings(
    r"ignore:Exception ignored in. <_io\.FileIO name='.*/\.partial-step-:pytest.PytestUnraisableExceptionWarning"
)
_SETTINGS = {
    "dataset.name": "nci",
    **{f"model.{name}": size for name, size in (("hidden_size", 16), ("num_layers", 1), ("num_heads", 2))},
    **{f"{group}.num_steps": 40 for group in ("training", "redi_training", "distillation")},
    **{f"{group}.batch_size": 8 for group in ("training", "redi_training", "distillation")},
    "distillation.update_teacher_every": 15,
}
_TARGET, _SOURCE = (np.random.default_rng(seed).integers(5, size=(20, 6), dtype=np.uint8) for seed in (0, 1))
_INTERRUPTIONS = 3
_Training = Callable[[Path], FitResult]


def _training(method: Method, base: Path) -> _Training:
    """What trains a model of a method in a folder; a refined one starts from a base that is trained once."""
    preset = resolve(with_assignments(DistillParameters(), _SETTINGS))
    options: dict[str, Any] = {"vocab_size": 5, "checkpoint_every": 7, "device": "cpu", "progress": False}
    spec = method.training(preset)
    source = _SOURCE if spec.coupling == "paired" else None
    train = functools.partial(fit, preset.model, spec, _TARGET, source, **options)
    if method.refinement is None:
        return lambda folder: train(checkpoint_dir=folder)
    checkpoint = Path(train(checkpoint_dir=base).checkpoint)
    refine = method.refinement.fit(preset, load_model(checkpoint), checkpoint)
    own = _SOURCE if method.refinement.own_pairs(preset) is not None else None
    return lambda folder: refine(_TARGET, own, checkpoint_dir=folder, **options)


def _interrupted(train: _Training, folder: Path, after_s: float) -> bool:
    """Whether a training was cut off by Ctrl-C, which comes between any two instructions, after seconds of a core."""
    under_way = True

    def interrupt(*_: object) -> None:
        if under_way:  # one that comes as the training ends would end pytest
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGVTALRM, interrupt)
    gc.disable()  # hypothesis listens to the collector, and what is raised there is lost
    try:
        signal.setitimer(signal.ITIMER_VIRTUAL, after_s)
        train(folder)
        under_way = False
        return False
    except KeyboardInterrupt:
        return True
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
        gc.enable()


@pytest.fixture(autouse=True)
def _gradients_are_on_afterwards() -> Iterator[None]:
    """A training does not mind that an interruption left them off; other tests of this process would."""
    with torch.enable_grad():
        yield


@pytest.mark.parametrize("name", METHODS)
def test_the_weights_are_those_of_an_undisturbed_training(name: str, tmp_path: Path) -> None:
    train = _training(METHODS[name], tmp_path / "base")
    train(tmp_path / "first")  # what is compiled and imported is so now
    started = time.process_time()
    whole = train(tmp_path / "whole")
    seconds = time.process_time() - started
    moments = [random.uniform(0.001, seconds) for _ in range(_INTERRUPTIONS)]  # noqa: S311 - seeded by pytest-randomly
    for moment in moments:
        _interrupted(train, tmp_path / "cut", moment)
    ended = train(tmp_path / "cut")
    expected, got = (load_file(Path(each.checkpoint) / "tensors.safetensors") for each in (whole, ended))
    assert expected.keys() == got.keys()
    differ = [key for key in expected if not torch.equal(expected[key], got[key])]
    assert differ == [], f"interrupted after {moments} of {seconds:.2f} s of a core"
