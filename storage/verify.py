"""Every hash of a committed coupling, computed again."""

import os
from collections.abc import Iterator
from dataclasses import dataclass

from pairflow.errors import ShardConflictError, ShardCorruptError
from storage.ahead import in_order
from storage.content import COLUMNS, Columns, ContentHash, content_sha256
from storage.documents import HEADER, MANIFEST, read_document, record_name
from storage.filesystem import Folder, open_folder
from storage.layout import decode_checked, fault_of
from storage.manifest import Manifest, PairsHeader, ShardPlan, ShardRecord
from storage.reader import not_whole


@dataclass(frozen=True)
class BadShard:
    """A file that is not as it was written."""

    index: int | None
    """Of its shard; None for a file of the whole coupling."""
    reason: str
    """missing, short, long, hash mismatch, wrong shape, wrong fingerprint, ..., with details."""
    path: str


@dataclass(frozen=True)
class VerifyReport:
    """What `verify_pairs` found."""

    url: str
    num_shards: int
    """Shards that were checked; 0 if the manifest itself is damaged."""
    bad: list[BadShard]

    @property
    def ok(self) -> bool:
        """Whether every byte is as it was written."""
        return not self.bad


def verify_pairs(url: str | os.PathLike[str], *, progress: bool = True) -> VerifyReport:
    """Reads every file of a committed coupling and checks every hash, down to the tokens.

    Damage is reported, not raised, and one bad shard does not hide the next.

    Args:
        url: of the pairs.
        progress: shows a bar if it takes more than a second.

    Raises:
        StoreError: nothing is there, or only a part of a coupling, or the store cannot be read.
        ManifestVersionError: another format version wrote it.
    """
    from tqdm import tqdm

    folder = open_folder(url)
    try:
        manifest = read_document(Manifest, folder, MANIFEST)
    except ShardCorruptError as error:
        return VerifyReport(folder.url, 0, [BadShard(None, str(error), folder.path(MANIFEST))])
    if manifest is None:
        raise not_whole(folder)
    header = manifest.header
    bad = list(_bad_files(folder, manifest))
    content = ContentHash(header)

    def check(record: ShardRecord) -> tuple[list[BadShard], Columns]:
        columns: Columns = {}
        faults = list(_bad_record(folder, header, record))
        faults += _bad_objects(folder, header, record, columns)
        return faults, columns

    records = tqdm(manifest.shards, "verify", unit="shard", disable=not progress, delay=1)
    for faults, columns in in_order(check, records):
        if not faults:
            content.update(columns)
        bad += faults
    if not bad and content.hexdigest() != manifest.content_sha256:
        bad.append(BadShard(None, "content hash mismatch over all shards", folder.path(MANIFEST)))
    return VerifyReport(folder.url, len(manifest.shards), bad)


def _bad_files(folder: Folder, manifest: Manifest) -> Iterator[BadShard]:
    """Header and metadata."""
    path = folder.path(HEADER)
    try:
        header = read_document(PairsHeader, folder, HEADER)
        if header is None:
            yield BadShard(None, "missing", path)
        else:
            manifest.header.check_same_coupling(header, path)
    except ShardCorruptError as error:
        yield BadShard(None, str(error), path)
    except ShardConflictError as error:
        yield BadShard(None, f"wrong fingerprint or header: {error}", path)
    for described in manifest.metadata:
        if fault := fault_of(described, folder.read(described.name)):
            yield BadShard(None, fault, folder.path(described.name))


def _bad_record(folder: Folder, header: PairsHeader, record: ShardRecord) -> Iterator[BadShard]:
    """The record's own file, against its copy in the manifest."""
    name = record_name(header, record.index)
    path = folder.path(name)
    try:
        stored = read_document(ShardRecord, folder, name)
    except ShardCorruptError as error:
        yield BadShard(record.index, str(error), path)
        return
    if stored is None:
        yield BadShard(record.index, "record missing", path)
    elif stored.fingerprint != record.fingerprint:
        yield BadShard(
            record.index,
            f"wrong fingerprint: the record belongs to {stored.fingerprint}, expected {record.fingerprint}",
            path,
        )
    elif stored != record:
        yield BadShard(record.index, "the record differs from its copy in the manifest", path)


def _bad_objects(folder: Folder, header: PairsHeader, record: ShardRecord, columns: Columns) -> Iterator[BadShard]:
    """The shard's objects; fills in `columns` from the good ones."""
    sound = True
    for described in record.objects:
        data = folder.read(described.name)
        fault = fault_of(described, data)
        try:
            decoded = {} if data is None else decode_checked(header, record, described.name, data)
        except ValueError as error:
            fault = str(error) if fault is None else _more_telling(fault, str(error))
        else:
            columns |= decoded
        if fault is not None:
            sound = False
            yield BadShard(record.index, fault, folder.path(described.name))
    shard = ShardPlan(record.index, record.start, record.stop)
    if sound and (set(columns) != set(COLUMNS) or content_sha256(header, shard, columns) != record.content_sha256):
        yield BadShard(record.index, "content hash mismatch", folder.path(record.objects[0].name))


def _more_telling(fault: str, decoding: str) -> str:
    """What decoding found says more than a hash, if the bytes are a sound file of something else."""
    return decoding if decoding.startswith("wrong ") else fault
