"""What lies in a store: datasets, couplings, jobs. For housekeeping, and for people who look for something."""

import contextlib
import os
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from pairflow.errors import ManifestVersionError, ShardCorruptError, StoreError
from storage.commit import names_of
from storage.documents import HEADER, MANIFEST, read_document
from storage.filesystem import LocalFolder, join, open_folder
from storage.manifest import Manifest, PairsHeader

_COUPLING = re.compile(r"pairs/([0-9a-f]{64})\.(?:zarr|parquet)/")
_JOB = re.compile(r"jobs/([^/]+)/")
_TEMPORARY = re.compile(r"(?:.*/)?\.[^/]+\.[0-9a-f]{32}\.tmp")

State = Literal["complete", "partial", "damaged"]


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
"""By name, relative to the store, with forward slashes."""


@dataclass(frozen=True)
class StoredCoupling:
    """A coupling in a store.

    Attributes:
        url: where it lies.
        fingerprint: its own, by the folder's name.
        state: complete: committed. partial: not yet. damaged: its manifest or header cannot be read.
        header: what it is; None if that cannot be read.
        shards_written: shards that have a record.
        files: all that lies in its folder, temporary files included.
        stray: files that a committed coupling does not know.
    """

    url: str
    fingerprint: str
    state: State
    header: PairsHeader | None
    shards_written: int
    files: Files
    stray: tuple[str, ...]

    @property
    def num_bytes(self) -> int:
        return sum(file.num_bytes for file in self.files.values())

    @property
    def modified(self) -> float:
        """Unix time of the last write to any of its files."""
        return max(file.modified for file in self.files.values())


@dataclass(frozen=True)
class StoredJob:
    """The folder in which a flow and its Ray job left request and result."""

    url: str
    state: Literal["finished", "failed", "unfinished"]
    files: Files

    @property
    def num_bytes(self) -> int:
        return sum(file.num_bytes for file in self.files.values())

    @property
    def modified(self) -> float:
        return max(file.modified for file in self.files.values())


@dataclass(frozen=True)
class Inventory:
    """All of a store that is ours."""

    url: str
    couplings: tuple[StoredCoupling, ...]
    jobs: tuple[StoredJob, ...]


def take_inventory(store_url: str | os.PathLike[str]) -> Inventory:
    """Lists a store; files that are not ours are passed over.

    Raises:
        StoreError: the store cannot be read.
    """
    url = open_folder(store_url).url
    couplings: dict[str, dict[str, StoredFile]] = defaultdict(dict)
    jobs: dict[str, dict[str, StoredFile]] = defaultdict(dict)
    for name, file in sorted(list_files(url).items()):
        for pattern, found in ((_COUPLING, couplings), (_JOB, jobs)):
            if match := pattern.match(name):
                found[match[0].rstrip("/")][name] = file
    return Inventory(
        url,
        tuple(_coupling(url, folder, files) for folder, files in couplings.items()),
        tuple(_job(url, folder, files) for folder, files in jobs.items()),
    )


def is_temporary(name: str) -> bool:
    """Whether a file is what a killed writer left half-written."""
    return _TEMPORARY.fullmatch(name) is not None


def list_files(url: str) -> dict[str, StoredFile]:
    """Every file below a folder, none if there is no such folder.

    Raises:
        StoreError: it cannot be listed.
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
    for folder, _, names in os.walk(root):
        for name in names:
            path = Path(folder) / name
            try:
                status = path.stat()
            except FileNotFoundError:  # removed or renamed by a writer meanwhile
                continue
            files[path.relative_to(root).as_posix()] = StoredFile(status.st_size, status.st_mtime)
    return files


def _modified(info: Mapping[str, Any]) -> float:
    """Unix time at which an object was written, under the name that its filesystem has for it."""
    found = next(info[key] for key in ("mtime", "LastModified", "last_modified", "updated", "created") if key in info)
    if isinstance(found, str):
        found = datetime.fromisoformat(found)
    return float(found.timestamp()) if isinstance(found, datetime) else float(found)


def _coupling(store_url: str, name: str, files: Files) -> StoredCoupling:
    url = join(store_url, name)
    folder = open_folder(url)
    manifest: Manifest | None = None
    header: PairsHeader | None = None
    state: State = "partial"
    try:
        manifest = read_document(Manifest, folder, MANIFEST)
        header = read_document(PairsHeader, folder, HEADER) if manifest is None else manifest.header
    except (ShardCorruptError, ManifestVersionError):
        state = "damaged"
    stray: tuple[str, ...] = ()
    if manifest is not None and header is not None:
        state = "complete"
        known = {HEADER, MANIFEST, *names_of(manifest)}
        below = {file.removeprefix(f"{name}/"): file for file in files}
        stray = tuple(file for short, file in below.items() if short not in known and not is_temporary(file))
    written = sum(file.startswith(f"{name}/_records/") and not is_temporary(file) for file in files)
    return StoredCoupling(url, name[len("pairs/") :].partition(".")[0], state, header, written, files, stray)


def _job(store_url: str, name: str, files: Files) -> StoredJob:
    state: Literal["finished", "failed", "unfinished"] = "unfinished"
    if f"{name}/result.json" in files:
        state = "finished"
    elif f"{name}/error.json" in files:
        state = "failed"
    return StoredJob(join(store_url, name), state, files)
