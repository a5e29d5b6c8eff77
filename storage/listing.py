"""The files below a folder, on any filesystem: for housekeeping, and for people who look for something."""

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any

from pairflow.errors import StoreError
from storage.filesystem import LocalFolder, open_folder


@dataclass(frozen=True)
class StoredFile:
    """A file below the store.

    Attributes:
        num_bytes: its size.
        modified: Unix time of its last write.
    """

    num_bytes: int
    modified: float


Files = Mapping[str, StoredFile]
"""By name, relative to the folder, with forward slashes."""


def list_files(url: str) -> dict[str, StoredFile]:
    """Every file below a folder, none if there is no such folder.

    Raises:
        StoreError: it, or a folder below it, cannot be listed: what was not seen must not count as not there.
    """
    folder = open_folder(url)
    with _listing(url):
        if isinstance(folder, LocalFolder):
            return _list_local(Path(folder.url))
        filesystem, root = _remote(folder.url)
        infos = filesystem.find(root, detail=True)
    return {path[len(root) + 1 :]: StoredFile(info["size"], _modified(info)) for path, info in infos.items()}


def list_names(url: str) -> list[str]:
    """What lies in a folder, not what lies below that; nothing if there is no such folder.

    Raises:
        StoreError: it cannot be listed.
    """
    folder = open_folder(url)
    with _listing(url):
        try:
            if isinstance(folder, LocalFolder):
                return sorted(os.listdir(folder.url))
            filesystem, root = _remote(folder.url)
            return sorted(PurePosixPath(path).name for path in filesystem.ls(root, detail=False))
        except FileNotFoundError:
            return []


def holds_anything(url: str) -> bool:
    """Whether anything lies in a folder; the empty files by which it was tried whether it can be written do not count.

    Raises:
        StoreError: it cannot be listed.
    """
    return any(not name.startswith(".probe-") for name in list_names(url))


@contextlib.contextmanager
def _listing(url: str) -> Iterator[None]:
    """Turns what a filesystem raises into a StoreError."""
    try:
        yield
    except Exception as error:  # clients of object stores raise types of their own
        raise StoreError(f"cannot list {url}: {type(error).__name__}: {error}; check that it can be reached") from error


def _remote(url: str) -> tuple[Any, str]:
    """fsspec's filesystem of a URL, that lists anew, and the path there."""
    import fsspec

    filesystem, root = fsspec.core.url_to_fs(url)
    filesystem.invalidate_cache()
    return filesystem, root.rstrip("/")


def _list_local(root: Path) -> dict[str, StoredFile]:
    files = {}
    for folder, names in _walk(root):
        for name in names:
            path = Path(folder) / name
            try:
                status = path.stat()
            except FileNotFoundError:  # removed or renamed by a writer meanwhile
                continue
            files[path.relative_to(root).as_posix()] = StoredFile(status.st_size, status.st_mtime)
    return files


def _walk(root: Path) -> Iterator[tuple[str, list[str]]]:
    """Folders and the files in them; also behind a link that stands for pairs, or for all of them, on another disk."""
    for folder, below, names in os.walk(root, onerror=_unless_gone):
        yield folder, names
        if root in (Path(folder), Path(folder).parent):
            for link in (path for name in below if os.path.islink(path := os.path.join(folder, name))):
                yield from ((folder, names) for folder, _, names in os.walk(link, onerror=_unless_gone))


def _unless_gone(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error


def _modified(info: Mapping[str, Any]) -> float:
    """Unix time at which an object was written, under the name that its filesystem has for it."""
    found = next(info[key] for key in ("mtime", "LastModified", "last_modified", "updated", "created") if key in info)
    if isinstance(found, str):
        found = datetime.fromisoformat(found)
    return float(found.timestamp()) if isinstance(found, datetime) else float(found)
