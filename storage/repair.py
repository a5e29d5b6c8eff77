"""Puts back what is damaged of a coupling, as far as its sound files say what it was."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field

from pairflow.errors import ShardCorruptError
from storage.commit import assemble_manifest
from storage.content import Columns, ContentHash
from storage.documents import HEADER, MANIFEST, parse_document, read_document, record_name, render
from storage.filesystem import Folder, open_folder
from storage.layout import fault_of, layout_of, read_shard
from storage.manifest import Manifest, PairsHeader, ShardRecord
from storage.reader import not_whole
from storage.records import put_metadata, read_record
from storage.salvage import manifest_as_it_was, without_flipped_bit


@dataclass
class Restoration:
    """What `restore_pairs` did, and what is left to do."""

    url: str
    restored: list[str] = field(default_factory=list)
    """Paths of files that were written anew: the bytes that were there, unless `lost` says otherwise."""
    lost: list[str] = field(default_factory=list)
    """What no sound file says any more."""
    bad_shards: list[int] = field(default_factory=list)
    """Shards whose tokens have to be made again."""


def restore_pairs(url: str | os.PathLike[str], header: PairsHeader | None = None) -> Restoration:
    """Restores header, metadata, records and manifest from each other, and says which shards have to be made again.

    A sound manifest says what header, records and metadata were. A damaged one is made again from header, records and
    shards, all of which are read and checked; what only the manifest says, its summary, is salvaged from its bytes if
    their hash proves it. Where shards are damaged as well, a damaged manifest is removed: the coupling is partial then,
    and `pairflow pair` makes what is missing and commits.

    Args:
        url: of pairs that were committed.
        header: what they should be, for the case that header and manifest are both damaged.

    Raises:
        StoreError: nothing is there, or only a part, or the store cannot be read or written.
        ShardCorruptError: header and manifest are damaged, and `header` is not given.
        ShardConflictError: other pairs than those of `header` are there.
        ManifestVersionError: another format version wrote it.
    """
    folder = open_folder(url)
    damaged = folder.read(MANIFEST)
    if damaged is None:
        raise not_whole(folder)
    done = Restoration(folder.url)
    try:
        manifest = parse_document(Manifest, damaged, folder.path(MANIFEST))
    except ShardCorruptError:
        _restore_manifest(folder, damaged, header, done)
    else:
        _restore_from_manifest(folder, manifest, done)
    return done


def _restore_from_manifest(folder: Folder, manifest: Manifest, done: Restoration) -> None:
    header = manifest.header
    if not _says(folder, header, HEADER):
        _put(folder, HEADER, render(header), done)
    files = layout_of(header).metadata(header)
    for described in manifest.metadata:
        if fault_of(described, folder.read(described.name)) is not None:
            if fault_of(described, files.get(described.name)) is None:
                _put(folder, described.name, files[described.name], done)
            else:
                done.lost.append(f"{folder.path(described.name)}: this release of zarr writes other bytes")
    for record in manifest.shards:
        if not _says(folder, record, record_name(header, record.index)):
            _put(folder, record_name(header, record.index), render(record), done)
        if _read_if_sound(folder, header, record) is None:
            done.bad_shards.append(record.index)


def _says(folder: Folder, document: PairsHeader | ShardRecord, name: str) -> bool:
    """Whether a file holds a document."""
    try:
        return read_document(type(document), folder, name) == document
    except ShardCorruptError:
        return False


def _restore_manifest(folder: Folder, damaged: bytes, expected: PairsHeader | None, done: Restoration) -> None:
    healed = without_flipped_bit(damaged)
    if healed is not None:
        _put(folder, MANIFEST, healed, done)
        _restore_from_manifest(folder, parse_document(Manifest, healed, folder.path(MANIFEST)), done)
        return
    header = _restore_header(folder, expected, done)
    content = ContentHash(header)
    records = list(_sound_shards(folder, header, content, done))
    if done.bad_shards:
        folder.delete(MANIFEST)
        done.lost.append(f"{folder.path(MANIFEST)}: the figures of the run that committed it")
        return
    for name, data in layout_of(header).metadata(header).items():
        _put(folder, name, data, done)
    metadata = put_metadata(folder, header)
    rebuilt = assemble_manifest(header, records, metadata, content.hexdigest(), summary={})
    as_it_was = manifest_as_it_was(rebuilt, damaged)
    if as_it_was is None:
        done.lost.append(f"{folder.path(MANIFEST)}: its summary, the figures of the run that committed it")
    _put(folder, MANIFEST, as_it_was or render(rebuilt), done)


def _restore_header(folder: Folder, expected: PairsHeader | None, done: Restoration) -> PairsHeader:
    try:
        header = read_document(PairsHeader, folder, HEADER)
        if header is None:
            raise ShardCorruptError(f"{folder.path(HEADER)} is missing, and {MANIFEST} is damaged")
    except ShardCorruptError as error:
        healed = without_flipped_bit(folder.read(HEADER) or b"")
        if healed is not None:
            header = parse_document(PairsHeader, healed, folder.path(HEADER))
        elif expected is not None:
            header = expected
        else:
            raise ShardCorruptError(
                f"{error}; header and manifest are both beyond repair: move {folder.url} away and run `pairflow pair` "
                "with the options that made these pairs"
            ) from error
        _put(folder, HEADER, healed or render(header), done)
    if expected is not None:
        expected.check_same_coupling(header, folder.path(HEADER))
    return header


def _sound_shards(
    folder: Folder, header: PairsHeader, content: ContentHash, done: Restoration
) -> Iterator[ShardRecord]:
    """The records of the shards that are as they were written; the others count as missing from now on."""
    for shard in header.plan():
        name = record_name(header, shard.index)
        record = read_record(folder, header, shard)
        if record is None and (healed := without_flipped_bit(folder.read(name) or b"")) is not None:
            _put(folder, name, healed, done)
            record = read_record(folder, header, shard)
        columns = None if record is None else _read_if_sound(folder, header, record)
        if record is None or columns is None:
            folder.delete(name)
            done.bad_shards.append(shard.index)
        else:
            content.update(columns)
            yield record


def _read_if_sound(folder: Folder, header: PairsHeader, record: ShardRecord) -> Columns | None:
    try:
        return read_shard(folder, header, record)
    except ShardCorruptError:
        return None


def _put(folder: Folder, name: str, data: bytes, done: Restoration) -> None:
    if folder.read(name) != data:
        folder.write(name, data)
        folder.settle([name])
        done.restored.append(folder.path(name))
