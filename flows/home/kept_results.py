"""What training and evaluation leave, under PAIRFLOW_HOME.

runs/<training fingerprint>/checkpoints/step-…/    safetensors and JSON
runs/<training fingerprint>/result.json            written when the model is trained and logged
evaluations/<fingerprint>/                         scores.json and samples.npz of one model, whoever made it
reports/<fingerprint>/                             table, pictures and page of a comparison
known-data/<name>-….json                           digests of data that a job has read, while they are as they were

With a store on a disk that is all. With one on S3 or the like no machine need see another's disk: all but the last line
lies in the store too, under the same names, and what the store says counts; the files of this disk are copies.
"""

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import storage
from flows.home.settings import Settings
from pairflow.errors import StoreError
from pairflow.spec import Spec

R = TypeVar("R", bound=Spec)


def read(path: Path, result_type: type[R]) -> R | None:
    """A result that was left here, or None if there is none that this release can use."""
    try:
        return result_type.model_validate_json(path.read_text())
    except (FileNotFoundError, NotADirectoryError, ValueError):  # another release's, or damaged
        return None


def write(path: Path, result: Spec) -> None:
    """Leaves a result, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(result.model_dump_json(indent=1) + "\n")
    partial.replace(path)


def try_to_write(path: Path, result: Spec) -> None:
    """As `write`; where that fails nothing is left, and whoever looks for it does the work again."""
    with contextlib.suppress(OSError):
        write(path, result)


@dataclass(frozen=True)
class KeptFolder:
    """A folder of results, wherever they are kept.

    Attributes:
        here: on this disk.
        url: in the store; None where the disk is all there is.
    """

    here: Path
    url: str | None

    @classmethod
    def at(cls, here: Path, settings: Settings) -> "KeptFolder":
        """The folder at a path below PAIRFLOW_HOME."""
        if settings.store_is_local:
            return cls(here, None)
        return cls(here, storage.join(settings.store, here.relative_to(settings.home).as_posix()))

    def below(self, *names: str) -> "KeptFolder":
        """A folder in this one."""
        return KeptFolder(self.here.joinpath(*names), None if self.url is None else storage.join(self.url, *names))

    def place(self, *names: str) -> str:
        """Where a file or folder is kept, for people and other machines: a path, or a URL."""
        kept = self.below(*names) if names else self
        return str(kept.here) if kept.url is None else kept.url

    def read(self, name: str, result_type: type[R]) -> R | None:
        """A result that is kept here, or None if there is none that this release can use.

        Raises:
            StoreError: the store does not answer.
        """
        if self.url is None:
            return read(self.here / name, result_type)
        document = storage.open_folder(self.url).read(name)
        try:
            return None if document is None else result_type.model_validate_json(document)
        except ValueError:
            return None

    def write(self, name: str, result: Spec) -> None:
        """Leaves a result, whole or not at all.

        Raises:
            StoreError: the store cannot be written.
        """
        write(self.here / name, result)
        self.keep(name)

    def has(self, name: str) -> bool:
        """Whether a file is kept.

        Raises:
            StoreError: the store does not answer.
        """
        return storage.open_folder(self.place()).size(name) is not None

    def keep(self, *names: str) -> None:
        """Sees to it that other machines find files that were written on this disk; one after the other.

        Raises:
            StoreError: the store cannot be written.
        """
        if self.url is not None:
            for name in names:
                storage.open_folder(self.url).write(name, (self.here / name).read_bytes())

    def fetch(self, *names: str) -> None:
        """Sees to it that files which are kept lie on this disk as well, each whole; what is not kept is left out.

        Raises:
            StoreError: the store cannot be read, or this disk not written.
        """
        if self.url is not None:
            for name in names:
                if (data := storage.open_folder(self.url).read(name)) is not None:
                    storage.open_folder(self.here).write(name, data)


def content(place: str) -> bytes | None:
    """A file by the place that a result names, path or URL; None where it is not seen from here."""
    folder, _, name = place.rpartition("/")
    try:
        return storage.open_folder(folder or "/").read(name)
    except StoreError:
        return None


def brought(place: str, folder: Path) -> Path:
    """A file by the place that a result names, path or URL, on this disk: where it lies, or as a copy in `folder`.

    Raises:
        StoreError: it is at a URL and cannot be read.
    """
    if "://" not in place:
        return Path(place)
    if (data := content(place)) is None:
        raise StoreError(f"cannot read {place}, which an evaluation has just written; see that the store is reachable")
    copy = folder / place.rpartition("/")[2]
    copy.write_bytes(data)
    return copy
