"""Prepared datasets in a store, `<store>/datasets/<fingerprint>/`: token rows, vocabulary, parts, and what was dropped.

The manifest is written last: a folder without one counts as nothing, and whoever needs the data makes it again. What
is there can always be made again from its source, so damage is not repaired in place but written over.
"""

import importlib.metadata
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pairflow.errors import ManifestVersionError, ShardCorruptError, StoreError
from storage import dataset_files
from storage.dataset_files import Columns
from storage.dataset_manifest import DatasetHeader, DatasetManifest
from storage.documents import HEADER, MANIFEST, REMEDY_OF_DATASETS, parse_document, read_document, render
from storage.filesystem import Folder, join, open_folder
from storage.layout import describe, fault_of
from storage.listing import list_names
from storage.manifest import check_fingerprint
from storage.verify import BadShard, VerifyReport

Url = str | os.PathLike[str]

_SHARD_BYTES = 16 * 1024 * 1024  # of tokens: what is encoded at a time
_NAME = re.compile("[0-9a-f]{64}")
_URL = re.compile(r"(.*)/datasets/([0-9a-f]{64})/*", re.DOTALL)


@dataclass(frozen=True)
class StoredDataset:
    """Where prepared data lies, by its URL.

    Attributes:
        store: URL of the store.
        fingerprint: of the data.
    """

    store: str
    fingerprint: str


def dataset_url(store_url: Url, fingerprint: str) -> str:
    """Where a prepared dataset lies in a store.

    Raises:
        StoreError: the store's URL is none.
        SpecError: the fingerprint is none.
    """
    return join(store_url, "datasets", check_fingerprint(fingerprint))


def parse_dataset_url(url: Url) -> StoredDataset | None:
    """`dataset_url` the other way round; None of any other URL."""
    found = _URL.fullmatch(os.fspath(url))
    return None if found is None else StoredDataset(found[1], found[2])


def search_datasets(store_url: Url, digits: str) -> list[str]:
    """URLs of the prepared data whose fingerprint begins so, whole or not; a listing, for people who look for some.

    Raises:
        StoreError: the store cannot be listed.
    """
    folder = join(store_url, "datasets")
    return [join(folder, name) for name in list_names(folder) if _NAME.fullmatch(name) and name.startswith(digits)]


def shard_size_for(length: int, itemsize: int) -> int:
    """Rows a file where nobody asks for a number: a function of D and the tokens' type alone."""
    return max(1024, _SHARD_BYTES // (length * itemsize))


def find_dataset(url: Url) -> DatasetManifest | None:
    """The manifest of a prepared dataset that is whole; None if nothing, or only a part, is there.

    Raises:
        StoreError: the store cannot be read.
        ShardCorruptError: the manifest is damaged.
        ManifestVersionError: another format version wrote it.
    """
    return read_document(DatasetManifest, open_folder(url), MANIFEST)


def find_dataset_header(url: Url) -> DatasetHeader | None:
    """What was begun there, or is whole: of whichever of its two documents can be read; None if neither can.

    Raises:
        StoreError: the store cannot be read.
    """
    folder = open_folder(url)
    for document in (DatasetManifest, DatasetHeader):
        try:
            found = read_document(document, folder, MANIFEST if document is DatasetManifest else HEADER)
        except (ShardCorruptError, ManifestVersionError):
            continue
        if found is not None:
            return found.header if isinstance(found, DatasetManifest) else found
    return None


def write_dataset(url: Url, header: DatasetHeader, columns: Columns) -> DatasetManifest:
    """Writes a prepared dataset, its manifest last; one that is there already is left as it is.

    Several writers at once write the same bytes. What a killed writer left in another format stays as files that the
    manifest does not name.

    Args:
        url: of `dataset_url`.
        header: of the data.
        columns: tokens [M, D], held_out [M] bool and, if the header says so, label [M] uint8.

    Raises:
        StoreError: the store cannot be written.
    """
    folder = open_folder(url)
    if (there := find_dataset(url)) is not None:
        return there
    folder.write(HEADER, render(header))
    described = []
    for shard in header.plan():
        rows = {name: np.ascontiguousarray(values[shard.start : shard.stop]) for name, values in columns.items()}
        files = dataset_files.encode(header, shard, rows)
        folder.write_all(files)
        described += [describe(name, data) for name, data in files.items()]
    metadata = dataset_files.metadata(header)
    if metadata:
        folder.write_all(metadata)
        described += [describe(name, data) for name, data in metadata.items()]
    manifest = DatasetManifest(**dict(header), objects=tuple(described), created_by=_created_by())
    folder.settle([HEADER, *(each.name for each in described)])
    folder.write(MANIFEST, render(manifest))
    folder.settle([MANIFEST])
    return manifest


def discard_dataset(url: Url) -> None:
    """Has a prepared dataset count as not there, so that it is written again; its rows stay until then.

    Raises:
        StoreError: the store cannot be written.
    """
    open_folder(url).delete(MANIFEST)


def read_dataset(url: Url, manifest: DatasetManifest) -> Columns:
    """The rows of a prepared dataset, every file checked against its hash.

    Args:
        url: of it.
        manifest: its own.

    Raises:
        ShardCorruptError: a file is missing or not what was written; names it.
        StoreError: the store cannot be read.
    """
    folder = open_folder(url)
    columns = {
        name: np.empty((manifest.num_rows, *tail), dtype)
        for name, (dtype, tail) in dataset_files.columns_of(manifest).items()
    }
    described = {each.name: each for each in manifest.objects}
    for shard in manifest.plan():
        for name in dataset_files.objects(manifest, shard.index):
            data = folder.read(name)
            fault = f"{name} is not in its manifest" if name not in described else fault_of(described[name], data)
            if fault is None and data is not None:
                into = {column: values[shard.start : shard.stop] for column, values in columns.items()}
                try:
                    dataset_files.decode(manifest, name, data, into, shard.index)
                    continue
                except Exception as error:  # damaged bytes make zarr, numcodecs and pyarrow raise all kinds
                    fault = f"cannot be decoded: {type(error).__name__}: {error}"
            raise ShardCorruptError(f"prepared data is damaged: {folder.path(name)}: {fault}; {REMEDY_OF_DATASETS}")
    return columns


def verify_dataset(url: Url) -> VerifyReport:
    """Checks every hash of a prepared dataset; damage is reported, not raised.

    Raises:
        StoreError: nothing is there, or only a part, or the store cannot be read.
        ManifestVersionError: another format version wrote it.
    """
    folder = open_folder(url)
    try:
        manifest = read_document(DatasetManifest, folder, MANIFEST)
    except ShardCorruptError as error:
        return VerifyReport(folder.url, 0, [BadShard(None, str(error), folder.path(MANIFEST))])
    if manifest is None:
        raise StoreError(f"no prepared data that is whole at {folder.url}; {REMEDY_OF_DATASETS}")
    bad = [
        BadShard(None, fault, folder.path(each.name))
        for each in manifest.objects
        if (fault := fault_of(each, folder.read(each.name)))
    ]
    data = folder.read(HEADER)
    fault = "missing" if data is None else _fault_of_header(folder, data, manifest)
    if fault is not None:
        bad.append(BadShard(None, fault, folder.path(HEADER)))
    return VerifyReport(folder.url, manifest.num_shards, bad)


def absent_of_dataset(url: Url, manifest: DatasetManifest) -> dict[str, str]:
    """Files that are not there with their size, and why; a look at sizes only."""
    folder = open_folder(url)
    found: Mapping[str, int | None] = {each.name: folder.size(each.name) for each in manifest.objects}
    return {
        folder.path(each.name): "missing" if found[each.name] is None else "of another size"
        for each in manifest.objects
        if found[each.name] != each.num_bytes
    }


def _fault_of_header(folder: Folder, data: bytes, manifest: DatasetManifest) -> str | None:
    try:
        header = parse_document(DatasetHeader, data, folder.path(HEADER))
    except ShardCorruptError as error:
        return str(error)
    return None if header == manifest.header else "the header differs from its copy in the manifest"


def _created_by() -> str:
    try:
        return f"pairflow {importlib.metadata.version('pairflow')}"
    except importlib.metadata.PackageNotFoundError:  # run from a source tree that is not installed
        return "pairflow (not installed)"
