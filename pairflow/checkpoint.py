"""Atomic checkpoints: one folder a step, with safetensors and a JSON state, and never a pickle.

    <checkpoint_dir>/step-00001500/tensors.safetensors    model.*, ema.*, optimizer.*, teacher.* of a distillation, and
                                                          process.marginal where the noise is of the data
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

from pairflow.checkpoint_files import (
    FORMAT_VERSION,
    STATE,
    TENSORS,
    file_sha256,
    is_checkpoint,
    is_exported,
    latest,
    read_state,
    read_tensors,
    steps,
)
from pairflow.data_card import CARD
from pairflow.devices import resolve_device
from pairflow.errors import CheckpointError, PairFlowError, SpecError
from pairflow.models import ImageShape, build
from pairflow.models.shapes import shapes_alone
from pairflow.processes import Process
from pairflow.processes import build as build_process
from pairflow.spec import DistillationSpec, ModelSpec, TrainingSpec, parse

KEEP_LAST = 2
AVERAGED = "ema."
"""How the names of the averaged weights begin."""
PROCESS = "process."
"""How the names of what a process is made of begin."""


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

    Raises:
        CheckpointError: it cannot be written; nothing of it is left.
    """
    final = directory / f"step-{state['step']:08d}"
    partial = directory / f".partial-{final.name}-{_machine()}-{os.getpid()}"
    _sweep(directory)
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, partial / TENSORS)
        document = {**state, "format_version": FORMAT_VERSION, "sha256": file_sha256(partial / TENSORS)}
        (partial / STATE).write_text(json.dumps(document, indent=1, allow_nan=False) + "\n")
        for name in (TENSORS, STATE):
            _flush_to_disk(partial / name)
        _remove(final)
        partial.rename(final)
        _flush_to_disk(directory)
    except (OSError, SafetensorError) as error:  # the latter of a full disk, too
        raise CheckpointError(f"cannot write checkpoint {final}: {error}; give a folder that can be written") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)  # not there if all went well
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
    if not names <= {STATE, TENSORS, CARD} or (names and not _is_ours(path)):
        raise FileExistsError(errno.EEXIST, "a folder of that name is there that is not all ours: move it away")
    aside = path.with_name(f".old-{path.name}-{_machine()}-{os.getpid()}")
    path.rename(aside)
    shutil.rmtree(aside, ignore_errors=True)


def _sweep(directory: Path) -> None:
    """Removes what processes left that were killed while they wrote or removed a checkpoint."""
    left = re.compile(rf"\.(?:partial|old)-step-\d+-{_machine()}-(\d+)")
    for path in directory.glob(".*-step-*"):
        if (match := left.fullmatch(path.name)) and not _lives(int(match[1])):
            shutil.rmtree(path, ignore_errors=True)


@functools.cache
def _machine() -> str:
    """Where a process number means what it means here: others may write to the same folder (12 hex digits).

    One start of one machine's kernel, and the container within it. Where that cannot be said it is nobody's.
    """
    try:
        kernel = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
        place = f"{kernel} {os.readlink('/proc/self/ns/pid')} {os.uname().nodename}"
    except OSError:  # not Linux
        return os.urandom(6).hex()
    return hashlib.sha256(place.encode()).hexdigest()[:12]


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # somebody else's
        return True
    return True


def read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The tensors (on the CPU) and the state of one checkpoint folder, checked against its SHA-256.

    Raises:
        CheckpointError: missing, damaged, or written by another format version.
    """
    content, state = read_tensors(path)
    try:
        tensors = load(content)
    except SafetensorError as error:
        raise CheckpointError(f"checkpoint {path}: its tensors are no safetensors file: {error}") from None
    if is_exported(path):
        tensors = {name if name.startswith(PROCESS) else f"{AVERAGED}{name}": each for name, each in tensors.items()}
    return tensors, state


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
        path: `checkpoint_dir`, one of its step-N folders, or what `pairflow.exported.export` made of one.
        device: where to put the model.
        ema: load the averaged weights (used for all sampling) rather than the last ones.

    Raises:
        CheckpointError: nothing there, damaged, or tensors that do not fit the architecture it names.
    """
    folder = Path(path)
    if not is_checkpoint(folder):
        found = latest(folder)
        if found is None:
            raise CheckpointError(f"no checkpoint at {folder}: expected a step-N folder or a folder of them")
        folder = found
    tensors, state = read(folder)
    if not ema and is_exported(folder):
        raise CheckpointError(f"checkpoint {folder} holds the averaged weights alone; load it with ema=True")
    try:
        model_spec, training = parse(ModelSpec, state["model"]), parse(TrainingSpec, state["training"])
        image_shape = None if state["image_shape"] is None else _image_shape(state["image_shape"])
        vocab_size, length, step = (_whole(name, state[name]) for name in ("vocab_size", "length", "step"))
        distilled = state.get("distillation")
        distillation = None if distilled is None else parse(DistillationSpec, distilled)
        marginal = tensors.get(f"{PROCESS}marginal")
        process = build_process(training.process, vocab_size, training.predicts, marginal)
        make = functools.partial(
            build,
            model_spec,
            vocab_size=vocab_size,
            num_states=process.num_states,
            length=length,
            image_shape=image_shape,
        )
        with shapes_alone():  # sizes that the weights do not have would cost memory first
            try:
                shapes = make()
            except RuntimeError as error:  # of torch, which cannot even count them
                raise SpecError(f"sizes that no memory holds: {error}") from None
            _check_weights(shapes, tensors, AVERAGED if ema else "model.", folder)
        model = make()
    except KeyError as error:
        raise CheckpointError(f"checkpoint {folder}: {STATE} has no field {error}") from None
    except PairFlowError as error:
        raise CheckpointError(f"checkpoint {folder}: {STATE} describes no model: {error}") from None
    load_weights(model, tensors, AVERAGED if ema else "model.", folder)
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


def _flatten(fields: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in fields.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _flush_to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
