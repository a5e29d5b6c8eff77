"""What REF may be: one grammar for every command that takes one, and one text that says it.

A reference is parsed once, by its form and by whether there is such a folder; nothing else is asked or read. What it
stands for depends on what is wanted: a model (`flows.lineage.models`), pairs (`flows.lineage.stored_pairs`), or
anything that has a history (`flows.lineage.tracing.starts`). The parameters quote it.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, TypeAlias

from flows.home.places import absolute_url

_MODEL_ID = re.compile(r"(?:models:/)?(m-[0-9a-f]{32})")
_REGISTERED = re.compile(r"(?:models:/)?([A-Za-z0-9][A-Za-z0-9._-]*)(?:@([A-Za-z0-9._-]+)|/([0-9]{1,9}))")
_PAIRS_URL = re.compile(r"(?:.*/)?pairs/([0-9a-f]{64})\.(?:zarr|parquet)/*", re.DOTALL)
_CHECKPOINT_URL = re.compile(
    r"((?!file:|local:)[^/]+://.+/runs/([0-9a-f]{64}))(?:/checkpoints(?:/step-(\d{8,18}))?)?/*", re.DOTALL
)
_DIGITS = re.compile(r"[0-9a-f]{6,64}")
_RUN_ID = re.compile(r"[0-9a-f]{32}")
_PRETRAINED = re.compile(r"pretrained:([a-z0-9][a-z0-9-]{0,63})")


@dataclass(frozen=True)
class ModelId:
    """A model that MLflow has logged: `m-…`, or `models:/m-…`."""

    what: ClassVar[str] = "a model's id in MLflow"
    id: str


@dataclass(frozen=True)
class RegisteredModel:
    """A version of a registered model: `NAME@ALIAS`, or `NAME/NUMBER`; `models:/` before it is allowed."""

    what: ClassVar[str] = "a registered model"
    name: str
    alias_or_number: str


@dataclass(frozen=True)
class Pretrained:
    """A model that comes with the package: `pretrained:NAME`."""

    what: ClassVar[str] = "a model that comes with PairFlow"
    name: str


@dataclass(frozen=True)
class PairsUrl:
    """Pairs where a store has them, `STORE/pairs/<fingerprint>.zarr` or `.parquet`; they need not be there."""

    what: ClassVar[str] = "the URL of pairs"
    url: str
    fingerprint: str


@dataclass(frozen=True)
class CheckpointUrl:
    """A training, or one of its checkpoints, where a store that is no disk has them: `STORE/runs/<fingerprint>/…`."""

    what: ClassVar[str] = "the URL of a checkpoint"
    run_url: str
    fingerprint: str
    step: int | None


@dataclass(frozen=True)
class Folder:
    """Any other folder that is there, such as a checkpoint's."""

    what: ClassVar[str] = "a folder"
    path: Path


@dataclass(frozen=True)
class Digits:
    """A fingerprint, a digest or a run's id, or the first digits of one."""

    what: ClassVar[str] = "the first digits of a fingerprint"
    text: str

    @property
    def may_be_run(self) -> bool:
        """Whether there are as many as MLflow's ids of runs have."""
        return _RUN_ID.fullmatch(self.text) is not None


@dataclass(frozen=True)
class Other:
    """A dataset's name; the path of what is not there, or is on another machine; or nothing that is known."""

    what: ClassVar[str] = "neither of these nor a folder that is there"
    text: str

    @property
    def may_be_path(self) -> bool:
        return "/" in self.text or self.text.endswith((".zarr", ".parquet"))


Reference: TypeAlias = ModelId | RegisteredModel | Pretrained | PairsUrl | CheckpointUrl | Folder | Digits | Other


def parse(text: str) -> Reference:
    """What kind of reference a text is. A folder that is there comes before whatever else its name may look like."""
    if match := _MODEL_ID.fullmatch(text):
        return ModelId(match[1])
    if match := _PRETRAINED.fullmatch(text):
        return Pretrained(match[1])
    if match := _PAIRS_URL.fullmatch(text):
        return PairsUrl(absolute_url(text.rstrip("/")), match[1])
    if match := _CHECKPOINT_URL.fullmatch(text):
        return CheckpointUrl(match[1], match[2], None if match[3] is None else int(match[3]))
    if text and (folder := _folder_at(text)) is not None:
        return Folder(folder)
    if match := _REGISTERED.fullmatch(text):
        return RegisteredModel(match[1], match[2] or match[3])
    return Digits(text) if _DIGITS.fullmatch(text) else Other(text)


def _folder_at(text: str) -> Path | None:
    """The folder that a path leads to, absolute; None where it leads to none, or where a text can be no path."""
    try:
        path = os.path.expanduser(text)
    except ValueError:  # a zero byte, or half of a surrogate pair, in a user's name
        return None
    return Path(path).absolute() if os.path.isdir(path) else None


def absolute(text: str) -> str:
    """The same reference for a process in another working directory, where jobs run."""
    match parse(text):
        case PairsUrl(url=url):
            return url
        case Folder(path=path):
            return str(path)
    return text


def _one_of(*forms: str) -> str:
    return f"{', '.join(forms[:-1])}, or {forms[-1]}"


_DIGITS_TOO = "(or its first digits, 6 or more)"
_OF_A_MODEL = (
    "a checkpoint's folder",
    f"a training's fingerprint {_DIGITS_TOO}",
    "an MLflow model id m-…",
    "the id of its training's MLflow run",
    "a registered model, pairflow-NAME@ALIAS or pairflow-NAME/NUMBER",
    "one that comes with PairFlow, pretrained:NAME",
)
_OF_PAIRS = ("the URL of pairs", f"their fingerprint {_DIGITS_TOO}")
MODEL = _one_of(*_OF_A_MODEL)
"""What a command expects that wants a model, for its help and its errors."""
PAIRS = " or ".join(_OF_PAIRS)
"""Likewise, of a command that wants pairs."""
ANYTHING = _one_of(*_OF_A_MODEL, PAIRS, "the id of any other MLflow run of PairFlow's", "a dataset's name or digest")
"""Likewise, of `pairflow lineage`."""


def as_help(expected: str) -> str:
    """One of these texts as a sentence."""
    return f"{expected[0].upper()}{expected[1:]}."
