"""Checkpoints of one training, wherever they are kept: on this disk, or in the store for workers of any machine.

A training writes them to a disk, as the library does. With a store that is no disk they are put there too, a folder a
step, and `state.json` last: without it, or with tensors of another SHA-256, a checkpoint does not count. So a kill
leaves none that is half there, neither here nor in the store.
"""

import json
import logging
import os
import re
import shutil
import time
from pathlib import Path

import storage
from flows.home.kept_results import KeptFolder
from pairflow import checkpoint_files
from pairflow.checkpoint_files import STATE, TENSORS
from pairflow.data_card import CARD
from pairflow.errors import CheckpointError, StoreError

_STEP = re.compile(r"step-(\d{8,})")
_KEPT_IN_STORE = 2  # as many as a training leaves on a disk
_PAUSE_S = 30.0  # after the store did not take one
_logger = logging.getLogger("pairflow.job")


class Checkpoints:
    """The checkpoints of a training.

    Args:
        run: its folder.
    """

    def __init__(self, run: KeptFolder) -> None:
        self._kept = run.below("checkpoints")
        self._last, self._again_at = -1, 0.0

    @property
    def here(self) -> Path:
        """Where they lie on this disk."""
        return self._kept.here

    @property
    def lie_in_store(self) -> bool:
        """Whether another machine finds them."""
        return self._kept.url is not None

    def place(self, step: int) -> str:
        """Where one is kept, for people and other machines: a path, or a URL."""
        return self._kept.place(_name(step))

    def latest(self) -> tuple[int, Path] | None:
        """(step, folder on this disk) of the last one that is whole, of this disk or the store; the latter is brought.

        Raises:
            StoreError: the store does not answer.
        """
        found = checkpoint_files.steps(self.here)
        step, folder = found[-1] if found else (-1, self.here)
        for other in reversed(self._steps_in_store()):
            if other <= step:
                break
            if (brought := self._brought(other, self.here)) is not None:
                self._last = max(self._last, other)
                return other, brought
        return None if step < 0 else (step, folder)

    def latest_in_store(self) -> int | None:
        """The step of the last one that is in the store and whole.

        Raises:
            StoreError: the store does not answer.
        """
        there = reversed(self._steps_in_store())
        return next((each for each in there if self._brought(each, self.here) is not None), None)

    def bring(self, step: int, into: Path | None = None) -> Path:
        """The folder of one on this disk.

        Args:
            step: of it.
            into: another folder than `here` to put it in, where it lies in the store.

        Raises:
            CheckpointError: it is not there, or damaged.
            StoreError: the store does not answer.
        """
        folder = self.here / _name(step) if not self.lie_in_store else self._brought(step, into or self.here)
        if folder is None or not (folder / STATE).is_file():
            raise CheckpointError(
                f"no checkpoint at {self.place(step)}, or its files do not belong together; train again: what is whole "
                "is gone on from"
                + ("" if self.lie_in_store else ". Where another machine trained it, it must see this PAIRFLOW_HOME")
            )
        return folder

    def keep(self, *, last: bool = False) -> None:
        """Puts into the store what this disk has and the store has not.

        A store that does not take it holds no training up: the next call tries again, half a minute later.

        Args:
            last: it is to be there when this returns.

        Raises:
            StoreError: it is not.
        """
        if not self.lie_in_store or (not last and time.monotonic() < self._again_at):
            return
        for step, folder in checkpoint_files.steps(self.here):
            if step > self._last:
                try:
                    self._put(step, folder)
                except StoreError as error:
                    if last:
                        raise
                    self._again_at = time.monotonic() + _PAUSE_S
                    _logger.warning("the checkpoint of step %d is not in the store yet: %s", step, error)
                    return
                self._last = step

    def keep_card(self, step: int) -> None:
        """Puts beside one what its tokens mean, which was written after it.

        Raises:
            StoreError: the store cannot be written.
        """
        self._kept.below(_name(step)).keep(CARD)

    def _put(self, step: int, folder: Path) -> None:
        kept = self._kept.below(folder.name)
        if _sha256(storage.open_folder(kept.place()).read(STATE)) != checkpoint_files.read_state(folder).get("sha256"):
            kept.keep(TENSORS, *([CARD] if (folder / CARD).is_file() else []), STATE)
        for old in [each for each in self._steps_in_store() if each < step][: 1 - _KEPT_IN_STORE]:
            gone = storage.open_folder(self._kept.place(_name(old)))
            if _sha256(gone.read(STATE)) is not None:  # ours
                for name in (STATE, CARD, TENSORS):
                    gone.delete(name)

    def _steps_in_store(self) -> list[int]:
        if self._kept.url is None:
            return []
        names = (_STEP.fullmatch(each) for each in storage.list_names(self._kept.url))
        return sorted(int(match[1]) for match in names if match)

    def _brought(self, step: int, into: Path) -> Path | None:
        """A copy of one of the store; None if it is not whole there."""
        kept, final = self._kept.below(_name(step)), into / _name(step)
        there = storage.open_folder(kept.place())
        state = there.read(STATE)
        if state is None or (sha256 := _sha256(state)) is None:
            return None
        card = there.read(CARD)
        if not (final / STATE).is_file() or checkpoint_files.read_state(final).get("sha256") != sha256:
            partial = into / f".partial-{final.name}-{os.getpid()}"
            shutil.rmtree(partial, ignore_errors=True)
            try:
                partial.mkdir(parents=True)
                (partial / TENSORS).write_bytes(there.read(TENSORS) or b"")
                (partial / STATE).write_bytes(state)
                if checkpoint_files.file_sha256(partial / TENSORS) != sha256:
                    return None
                shutil.rmtree(final, ignore_errors=True)  # another machine's of the same step is the one that counts
                partial.rename(final)
            except OSError as error:
                raise CheckpointError(f"cannot write checkpoint {final}: {error}") from None
            finally:
                shutil.rmtree(partial, ignore_errors=True)
        if card is not None:
            storage.open_folder(final).write(CARD, card)
        return final


def step_of(place: str) -> int | None:
    """The step of a checkpoint by the name of its folder; None if that is no checkpoint's."""
    match = _STEP.fullmatch(place.rstrip("/").rpartition("/")[2])
    return int(match[1]) if match else None


def _name(step: int) -> str:
    return f"step-{step:08d}"


def _sha256(state: bytes | None) -> str | None:
    """Of the tensors that a state belongs to."""
    try:
        found = json.loads(state or b"null")
    except (ValueError, RecursionError):
        return None
    return found["sha256"] if isinstance(found, dict) and isinstance(found.get("sha256"), str) else None
