"""Atomic checkpoints: one folder a step, with safetensors and a JSON state, and never a pickle.

    <checkpoint_dir>/step-00001500/tensors.safetensors    model.*, ema.*, optimizer.*, and teacher.* of a distillation
    <checkpoint_dir>/step-00001500/state.json             what made it, and the SHA-256 of tensors.safetensors

A folder is written under a temporary name and renamed when it is complete, so a folder called step-N is
always whole. The files open with plain safetensors and json.
"""

import contextlib
import errno
import functools
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import nn

from pairflow.data_card import CARD
from pairflow.devices import resolve_device
from pairflow.errors import CheckpointError, PairFlowError, SpecError
from pairflow.models import ImageShape, build
from pairflow.processes import Process
from pairflow.processes import build as build_process
from pairflow.spec import DistillationSpec, ModelSpec, TrainingSpec, parse

FORMAT_VERSION = 1
KEEP_LAST = 2
_TENSORS, _STATE = "tensors.safetensors", "state.json"
_STEP_FOLDER = re.compile(r"step-(\d{8,})")


@dataclass(frozen=True)
class LoadedModel:
    """A trained denoiser in evaluation mode, and what it was trained on.

    Attributes:
        model: x_t int64 [B, D], t float [B] -> logits [B, D, K].
        model_spec: its architecture and sizes.
        vocab_size: K.
        length: D.
        image_shape: (C, H, W) for images.
        training: how it was trained.
        process: its noise process, for the sampler.
        distillation: how it was distilled after that, if it was.
        step: optimiser steps done.
        state: the checkpoint's whole JSON state (data digest, loss, validation NLL, seconds, …).
        path: the checkpoint's folder.
    """

    model: nn.Module
    model_spec: ModelSpec
    vocab_size: int
    length: int
    image_shape: ImageShape | None
    training: TrainingSpec
    process: Process
    distillation: DistillationSpec | None
    step: int
    state: Mapping[str, Any]
    path: Path


def save(directory: Path, tensors: Mapping[str, torch.Tensor], state: Mapping[str, Any]) -> Path:
    """Writes the checkpoint of `state["step"]` and removes all but the last two.

    Returns:
        The checkpoint's folder.
    """
    final = directory / f"step-{state['step']:08d}"
    partial = directory / f".partial-{final.name}-{os.getpid()}"
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, partial / _TENSORS)
        document = {**state, "format_version": FORMAT_VERSION, "sha256": _sha256(partial / _TENSORS)}
        (partial / _STATE).write_text(json.dumps(document, indent=1, allow_nan=False) + "\n")
        for name in (_TENSORS, _STATE):
            _flush_to_disk(partial / name)
        _remove(final)
        partial.rename(final)
        _flush_to_disk(directory)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise CheckpointError(f"cannot write checkpoint {final}: {error}; give a folder that can be written") from None
    before = [path for _, path in steps(directory) if path < final and _is_ours(path)]
    for old in before[: len(before) + 1 - KEEP_LAST]:
        with contextlib.suppress(OSError):
            _remove(old)
    return final


def _is_ours(path: Path) -> bool:
    """Whether a folder says itself that it is a checkpoint of ours."""
    try:
        return "sha256" in read_state(path)
    except CheckpointError:
        return False


def _remove(path: Path) -> None:
    """Removes a checkpoint's folder, if all of it is ours; whole for everybody else until it is gone."""
    if not path.exists():
        return
    names = {each.name for each in path.iterdir()}
    if not names <= {_STATE, _TENSORS, CARD} or (names and not _is_ours(path)):
        raise FileExistsError(errno.EEXIST, "a folder of that name is there that is not all ours: move it away")
    aside = path.with_name(f".old-{path.name}-{os.getpid()}")
    path.rename(aside)
    shutil.rmtree(aside, ignore_errors=True)


def steps(directory: Path) -> list[tuple[int, Path]]:
    """(step, folder) of the whole checkpoints in a folder, in ascending order; [] if there is none."""
    if not directory.is_dir():
        return []
    found = ((_STEP_FOLDER.fullmatch(path.name), path) for path in directory.iterdir())
    return sorted((int(match[1]), path) for match, path in found if match and (path / _STATE).is_file())


def latest(directory: Path) -> Path | None:
    """The folder of the last checkpoint, or None."""
    found = steps(directory)
    return found[-1][1] if found else None


def read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The tensors (on the CPU) and the state of one checkpoint folder, checked against its SHA-256.

    Raises:
        CheckpointError: missing, damaged, or written by another format version.
    """
    state = read_state(path)
    try:
        content = (path / _TENSORS).read_bytes()
    except OSError as error:
        raise CheckpointError(f"checkpoint {path}: cannot read {_TENSORS}: {error}; {_remedy(path)}") from None
    digest = hashlib.sha256(content).hexdigest()
    if digest != state.get("sha256"):
        raise CheckpointError(
            f"checkpoint {path}: {_TENSORS} is damaged: its SHA-256 is {digest}, {_STATE} says "
            f"{state.get('sha256')}; {_remedy(path)}"
        )
    try:
        return load(content), state
    except SafetensorError as error:
        raise CheckpointError(f"checkpoint {path}: {_TENSORS} is not a safetensors file: {error}") from None


def read_state(path: Path) -> dict[str, Any]:
    """The JSON state alone of one checkpoint folder.

    Raises:
        CheckpointError: missing, not JSON, or written by another format version.
    """
    try:
        state = json.loads((path / _STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"checkpoint {path}: cannot read {_STATE}: {error}; {_remedy(path)}") from None
    version = state.get("format_version") if isinstance(state, dict) else None
    if version != FORMAT_VERSION:
        raise CheckpointError(f"checkpoint {path}: format_version is {version}, this release reads {FORMAT_VERSION}")
    return state


def check_state(path: Path, state: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Every field of `expected`, nested ones included, must be in `state` with the same value.

    Raises:
        CheckpointError: the first field that differs, by its dotted name.
    """
    for name, value in _flatten(expected):
        got: Any = state
        for key in name.split("."):
            got = got.get(key) if isinstance(got, Mapping) else None
        if got != value:
            raise CheckpointError(
                f"checkpoint {path} belongs to another run: its {name} is {got!r}, expected {value!r}; use another "
                "checkpoint_dir, or the settings and data that it was made with"
            )


def load_weights(model: nn.Module, tensors: Mapping[str, torch.Tensor], prefix: str, path: Path) -> None:
    """Copies the tensors called `prefix` + name into the model's weights, which must all be there and fit.

    Raises:
        CheckpointError: the first tensor that is missing, has another shape, or has no place in the model.
    """
    _check_weights(model, tensors, prefix, path)
    model.load_state_dict({name: tensors[prefix + name] for name in model.state_dict()})


def _check_weights(model: nn.Module, tensors: Mapping[str, torch.Tensor], prefix: str, path: Path) -> None:
    own = model.state_dict()
    for name, weight in own.items():
        stored = tensors.get(prefix + name)
        if stored is None or stored.shape != weight.shape:
            got = "missing" if stored is None else f"of shape {list(stored.shape)}"
            raise CheckpointError(
                f"checkpoint {path} is of another architecture: tensor {prefix + name} is {got}, the model's has shape "
                f"{list(weight.shape)}"
            )
    for name in sorted(tensors):
        if name.startswith(prefix) and name.removeprefix(prefix) not in own:
            raise CheckpointError(f"checkpoint {path} is of another architecture: the model has no tensor {name}")


def load_model(path: str | Path, *, device: str | torch.device = "auto", ema: bool = True) -> LoadedModel:
    """A trained model from a checkpoint's folder, or from the last one of a run's `checkpoint_dir`.

    Args:
        path: `checkpoint_dir` or one of its step-N folders.
        device: where to put the model.
        ema: load the averaged weights (used for all sampling) rather than the last ones.

    Raises:
        CheckpointError: nothing there, damaged, or tensors that do not fit the architecture it names.
    """
    folder = Path(path)
    if not (folder / _STATE).is_file():
        found = latest(folder)
        if found is None:
            raise CheckpointError(f"no checkpoint at {folder}: expected a step-N folder or a folder of them")
        folder = found
    tensors, state = read(folder)
    try:
        model_spec, training = parse(ModelSpec, state["model"]), parse(TrainingSpec, state["training"])
        image_shape = None if state["image_shape"] is None else _image_shape(state["image_shape"])
        vocab_size, length, step = (_whole(name, state[name]) for name in ("vocab_size", "length", "step"))
        distilled = state.get("distillation")
        distillation = None if distilled is None else parse(DistillationSpec, distilled)
        process = build_process(training.process, vocab_size, training.predicts)
        make = functools.partial(
            build,
            model_spec,
            vocab_size=vocab_size,
            num_states=process.num_states,
            length=length,
            image_shape=image_shape,
        )
        with torch.device("meta"):  # sizes that the weights do not have would cost memory first
            _check_weights(make(), tensors, "ema." if ema else "model.", folder)
        model = make()
    except KeyError as error:
        raise CheckpointError(f"checkpoint {folder}: {_STATE} has no field {error}") from None
    except PairFlowError as error:
        raise CheckpointError(f"checkpoint {folder}: {_STATE} describes no model: {error}") from None
    load_weights(model, tensors, "ema." if ema else "model.", folder)
    model = model.to(resolve_device(device)).eval().requires_grad_(False)
    return LoadedModel(
        model, model_spec, vocab_size, length, image_shape, training, process, distillation, step, state, folder
    )


def _whole(name: str, value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**63:
        raise SpecError(f"{name} is {value!r}, expected a whole number")
    return value


def _image_shape(value: Any) -> ImageShape:
    if not isinstance(value, list) or len(value) != 3:
        raise SpecError(f"image_shape is {value!r}, expected [C, H, W]")
    channels, height, width = (_whole("image_shape", size) for size in value)
    return channels, height, width


def _remedy(path: Path) -> str:
    """What to do about a damaged checkpoint: there may be an older one beside it."""
    before = [folder.name for _, folder in steps(path.parent) if folder.name < path.name]
    then = f"go on from {before[-1]}, the one before it" if before else "start again: there is none before it"
    return f"remove this folder to {then}"


def _flatten(fields: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in fields.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush_to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
