"""What lies in a store: datasets, couplings, jobs. For housekeeping only: nothing else relies on a listing."""

import os
import re
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from pairflow.errors import ManifestVersionError, ShardCorruptError
from storage.ahead import READERS
from storage.dataset_manifest import DatasetHeader, DatasetManifest
from storage.documents import HEADER, MANIFEST, read_document
from storage.filesystem import Folder, join, open_folder
from storage.listing import Files, StoredFile, holds_anything, list_files
from storage.manifest import Manifest, PairsHeader
from storage.ownership import is_job, is_job_document, is_planned, is_planned_of_dataset, is_temporary

_COUPLING = re.compile(r"pairs/([0-9a-f]{64})\.(?:zarr|parquet)/")
_DATASET = re.compile(r"datasets/([0-9a-f]{64})/")
_JOB = re.compile(r"jobs/([^/]+)/")

State = Literal["complete", "partial", "damaged"]
Header = TypeVar("Header", PairsHeader, DatasetHeader)


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
        own: those that it plans, whole or half-written; none where its documents do not say.
    """

    url: str
    fingerprint: str
    state: State
    header: PairsHeader | None
    shards_written: int
    files: Files
    own: tuple[str, ...]

    @property
    def num_bytes(self) -> int:
        return sum(file.num_bytes for file in self.files.values())

    @property
    def modified(self) -> float:
        """Unix time of the last write to any of its files."""
        return max(file.modified for file in self.files.values())

    @property
    def stray(self) -> tuple[str, ...]:
        """Files in its folder that it does not plan: somebody else's, for all that is known."""
        return () if self.state == "damaged" else tuple(sorted(set(self.files) - set(self.own)))


@dataclass(frozen=True)
class PreparedData:
    """A prepared dataset in a store.

    Attributes:
        url: where it lies.
        fingerprint: its own, by the folder's name.
        state: complete: it has its manifest. partial: not yet. damaged: manifest or header cannot be read.
        header: what it is; None if that cannot be read.
        files: all that lies in its folder, temporary files included.
        own: those that it plans, whole or half-written; none where its documents do not say.
    """

    url: str
    fingerprint: str
    state: State
    header: DatasetHeader | None
    files: Files
    own: tuple[str, ...]

    @property
    def num_bytes(self) -> int:
        return sum(file.num_bytes for file in self.files.values())

    @property
    def modified(self) -> float:
        """Unix time of the last write to any of its files."""
        return max(file.modified for file in self.files.values())

    @property
    def digests(self) -> frozenset[str]:
        """Of its rows and of its parts: by what pairs, models and runs refer to it."""
        return frozenset() if self.header is None else frozenset({self.header.digest, *self.header.digests.values()})

    @property
    def stray(self) -> tuple[str, ...]:
        """Files in its folder that it does not plan: somebody else's, for all that is known."""
        return () if self.state == "damaged" else tuple(sorted(set(self.files) - set(self.own)))


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
    """All of a store that is ours.

    Attributes:
        url: of the store.
        couplings: in the order of their names.
        jobs: likewise.
        datasets: prepared ones, likewise.
        is_store: whether anything in it says that we wrote it, or nothing is there.
    """

    url: str
    couplings: tuple[StoredCoupling, ...]
    jobs: tuple[StoredJob, ...]
    datasets: tuple[PreparedData, ...]
    is_store: bool


def take_inventory(store_url: str | os.PathLike[str]) -> Inventory:
    """Lists a store; what does not say that it is ours is passed over (see `storage.ownership`).

    Raises:
        StoreError: the store cannot be read.
    """
    url = open_folder(store_url).url
    found: dict[re.Pattern[str], dict[str, dict[str, StoredFile]]] = {
        _COUPLING: defaultdict(dict),
        _JOB: defaultdict(dict),
        _DATASET: defaultdict(dict),
    }
    for room, pattern in (("pairs", _COUPLING), ("jobs", _JOB), ("datasets", _DATASET)):
        for name, file in sorted(list_files(join(url, room)).items()):
            if match := pattern.match(f"{room}/{name}"):
                found[pattern][match[0].rstrip("/")][f"{room}/{name}"] = file
    with ThreadPoolExecutor(READERS) as pool:
        couplings = pool.map(lambda each: _coupling(url, *each), found[_COUPLING].items())
        jobs = pool.map(lambda each: _job(url, *each), found[_JOB].items())
        datasets = pool.map(lambda each: _dataset(url, *each), found[_DATASET].items())
        ours = tuple(filter(None, couplings)), tuple(filter(None, jobs)), tuple(filter(None, datasets))
    return Inventory(url, *ours, is_store=any(ours) or not holds_anything(url))


def _coupling(store_url: str, name: str, files: Files) -> StoredCoupling | None:
    """A folder of pairs; None where no document of ours is in it."""
    url = join(store_url, name)
    fingerprint = name[len("pairs/") :].partition(".")[0]
    found = _state(open_folder(url), Manifest, PairsHeader, fingerprint)
    if found is None:
        return None
    state, header = found
    below = {file: file.removeprefix(f"{name}/") for file in files}
    own = () if header is None else tuple(file for file, short in below.items() if is_planned(header, short))
    written = sum(file.startswith(f"{name}/_records/") and not is_temporary(file) for file in files)
    return StoredCoupling(url, fingerprint, state, header, written, files, own)


def _dataset(store_url: str, name: str, files: Files) -> PreparedData | None:
    """A folder of prepared data; None where no document of ours is in it."""
    url, fingerprint = join(store_url, name), name.removeprefix("datasets/")
    found = _state(open_folder(url), DatasetManifest, DatasetHeader, fingerprint)
    if found is None:
        return None
    state, header = found
    own = (
        ()
        if header is None
        else tuple(file for file in files if is_planned_of_dataset(header, file.removeprefix(f"{name}/")))
    )
    return PreparedData(url, fingerprint, state, header, files, own)


def _state(
    folder: Folder, manifest_type: type[Manifest | DatasetManifest], header_type: type[Header], fingerprint: str
) -> tuple[State, Header | None] | None:
    """How far a folder is, and its header where that can be read; None where no document of ours is in it."""
    try:
        manifest = read_document(manifest_type, folder, MANIFEST)
        header: Any = read_document(header_type, folder, HEADER) if manifest is None else manifest.header
    except (ShardCorruptError, ManifestVersionError):
        return "damaged", None
    if header is None:
        return None
    if header.fingerprint != fingerprint:
        return "damaged", None  # somebody has renamed the folder
    return "partial" if manifest is None else "complete", header


def _job(store_url: str, name: str, files: Files) -> StoredJob | None:
    """A job's folder, and in it what we wrote; None where nothing says that it is one."""
    url = join(store_url, name)
    if f"{name}/request.json" not in files or not is_job(open_folder(url), name.removeprefix("jobs/")):
        return None
    own = {file: stored for file, stored in files.items() if is_job_document(file.removeprefix(f"{name}/"))}
    state: Literal["finished", "failed", "unfinished"] = "unfinished"
    if f"{name}/result.json" in own:
        state = "finished"
    elif f"{name}/error.json" in own:
        state = "failed"
    return StoredJob(url, state, own)
