"""Writing a coupling: begin, shards in any order, commit."""

import importlib.metadata
import json
import os
from typing import Any

import numpy.typing as npt

from pairflow.errors import ShardConflictError, ShardCorruptError, SpecError, StoreError
from pairflow.spec import canonical_json
from storage.content import COLUMNS, ContentHash, check_columns, column_dtype, column_shape, content_sha256
from storage.documents import HEADER, MANIFEST, read_document, record_name, render
from storage.filesystem import Folder, join, open_folder
from storage.layout import describe, layout_of, read_shard
from storage.manifest import (
    ArrayInfo,
    Manifest,
    PairsFormat,
    PairsHeader,
    ShardPlan,
    ShardRecord,
    StoredObject,
    check_fingerprint,
)
from storage.records import is_written, partial_state, read_record, require_header, stored_header

Url = str | os.PathLike[str]


def pairs_url(store_url: Url, fingerprint: str, format: PairsFormat) -> str:
    """Where a coupling lies in a store: `<store>/pairs/<fingerprint>.zarr` or `.parquet`.

    Raises:
        StoreError: the store's URL is empty, carries a password, or its filesystem is unknown.
        SpecError: the fingerprint or the format is none.
    """
    if format not in ("zarr", "parquet"):
        raise SpecError(f"format must be zarr or parquet, got {format!r}")
    return join(store_url, "pairs", f"{check_fingerprint(fingerprint)}.{format}")


def find_manifest(url: Url) -> Manifest | None:
    """The manifest of a committed coupling, or None if nothing, or only a part, is there.

    Raises:
        StoreError: the store cannot be read.
        ShardCorruptError: the manifest is damaged.
        ManifestVersionError: another format version wrote it.
    """
    return read_document(Manifest, open_folder(url), MANIFEST)


def begin_pairs(url: Url, header: PairsHeader) -> PairsHeader:
    """Writes the header of a coupling, unless one is there, and what its format needs besides shards.

    The first writer's header is kept, also if two begin at once; its `shard_size` is the plan for all, since the
    content does not depend on it. Go on with the header that comes back.

    Raises:
        StoreError: the store cannot be written.
        ShardConflictError: other pairs are there.
    """
    folder = open_folder(url)
    stored = read_document(PairsHeader, folder, HEADER)
    if stored is None:
        committed = read_document(Manifest, folder, MANIFEST)  # with its header lost: it knows the plan
        folder.create(HEADER, render(header if committed is None else committed.header))
        stored = stored_header(folder)
    header.check_same_coupling(stored, folder.path(HEADER))
    _put_metadata(folder, stored)
    return stored


def missing_shards(url: Url, header: PairsHeader) -> list[ShardPlan]:
    """The shards that are still to be written, in order.

    A shard counts as written if its record is sound, belongs to this coupling and plan, and every object that it names
    is there with the recorded size. That is cheap, and enough to resume by: an object is put whole, and before its
    record. Its bytes are hashed at commit, on reading, and by `verify_pairs`.

    Raises:
        StoreError: the coupling was not begun, or the store cannot be read.
        ShardConflictError: other pairs, or another plan, are there.
    """
    folder = open_folder(url)
    header = require_header(folder, header)
    return [shard for shard in header.plan() if not is_written(folder, header, shard)]


def write_shard(
    url: Url,
    header: PairsHeader,
    index: int,
    source: npt.ArrayLike,
    target: npt.ArrayLike,
    sample_id: npt.ArrayLike,
) -> ShardRecord:
    """Writes one shard, then its record. May run in any process, at the same time as others, and again.

    Args:
        url: of a coupling that was begun.
        header: as `begin_pairs` returned it.
        index: of the shard in `header.plan()`.
        source: x_0 [n, D] of the header's dtype, n the shard's rows.
        target: x_1 [n, D], likewise.
        sample_id: [n] integers, row numbers in the training part.

    Raises:
        SpecError: no such shard, or an array does not fit.
        StoreError: the coupling was not begun, or the store cannot be written.
        ShardConflictError: other pairs or another plan are there, or this shard with other content.
    """
    folder = open_folder(url)
    header = require_header(folder, header)
    shard = header.shard(index)
    columns = check_columns(header, shard, source, target, sample_id)
    encoded = layout_of(header).encode(header, shard, columns)
    record = ShardRecord(
        fingerprint=header.fingerprint,
        index=shard.index,
        start=shard.start,
        stop=shard.stop,
        objects=tuple(describe(name, data) for name, data in encoded.items()),
        content_sha256=content_sha256(header, shard, columns),
    )
    _check_no_conflict(folder, header, record)
    for name, data in encoded.items():
        folder.write(name, data)
    folder.write(record_name(header, index), render(record))
    return record


def commit_pairs(url: Url, header: PairsHeader, summary: dict[str, Any], *, progress: bool = True) -> Manifest:
    """Reads every shard once, in order, and writes the manifest: from then on the coupling is whole.

    The reading checks each shard against its record and makes the content hash of the whole, which no combination of
    shard hashes could give for every shard size. If another writer has committed already, its manifest is returned.

    Args:
        url: of a coupling whose shards are all written.
        header: as `begin_pairs` returned it.
        summary: figures of the run for the manifest, as JSON: seconds, keep rate.
        progress: shows a bar if it takes more than a second.

    Raises:
        SpecError: the summary is not JSON.
        StoreError: shards are missing, or the store cannot be read or written.
        ShardCorruptError: a shard is damaged; its record is removed, so that a rerun makes it again.
        ShardConflictError: other pairs, or another plan, are there.
    """
    folder = open_folder(url)
    header = require_header(folder, header)
    summary = _as_json(summary)
    if (committed := read_document(Manifest, folder, MANIFEST)) is not None:
        return committed
    if missing := missing_shards(url, header):
        raise StoreError(f"cannot commit {folder.url}: {partial_state(header, missing)}")
    content = ContentHash(header)
    shards = tuple(_read_in_order(folder, header, content, progress))
    manifest = Manifest(
        **{name: getattr(header, name) for name in PairsHeader.model_fields},
        arrays={
            name: ArrayInfo(shape=column_shape(header, name, header.num_rows), dtype=column_dtype(header, name).name)
            for name in COLUMNS
        },
        shards=shards,
        metadata=_put_metadata(folder, header),
        content_sha256=content.hexdigest(),
        summary=summary,
        created_by=f"pairflow {_version()}",
    )
    if not folder.create(MANIFEST, render(manifest)):
        committed = read_document(Manifest, folder, MANIFEST)
    return committed or manifest


def _put_metadata(folder: Folder, header: PairsHeader) -> tuple[StoredObject, ...]:
    """Writes the files that belong to no shard where they are not there as they should be."""
    files = layout_of(header).metadata(header)
    for name, data in files.items():
        if folder.read(name) != data:
            folder.write(name, data)
    return tuple(describe(name, data) for name, data in files.items())


def _check_no_conflict(folder: Folder, header: PairsHeader, record: ShardRecord) -> None:
    """Raises ShardConflictError if the shard is recorded with other content, or is committed with other bytes."""
    there = read_record(folder, header, header.shard(record.index))
    # A manifest is never changed, so a committed shard can only be put again as it was.
    committed = read_document(Manifest, folder, MANIFEST) if folder.size(MANIFEST) is not None else None
    if committed is not None:
        there = committed.shards[record.index]
    if there is not None and there.content_sha256 != record.content_sha256:
        raise ShardConflictError(
            f"shard {record.index} of {folder.url} is there with other content ({there.content_sha256}) than this one "
            f"({record.content_sha256}); equal fingerprints must give equal pairs: are all workers of one version?"
        )
    if committed is not None and there is not None and there.objects != record.objects:
        raise ShardConflictError(
            f"shard {record.index} of {folder.url} is committed with the same content in other bytes, as another "
            "release of the compression library makes them; write it with the release that wrote the others"
        )


def _read_in_order(folder: Folder, header: PairsHeader, content: ContentHash, progress: bool) -> list[ShardRecord]:
    """Feeds all shards to `content`; returns their records."""
    from tqdm import tqdm

    records = []
    for shard in tqdm(header.plan(), "commit", unit="shard", disable=not progress, delay=1):
        record = read_record(folder, header, shard)
        if record is None:
            raise StoreError(f"cannot commit {folder.url}: {partial_state(header, [shard])}")
        try:
            columns = read_shard(folder, header, record)
        except ShardCorruptError as error:
            folder.delete(record_name(header, shard.index))
            raise ShardCorruptError(
                f"cannot commit: {error}. It counts as missing now: run `pairflow pair` again, which makes it anew"
            ) from error
        content.update(columns)
        records.append(record)
    return records


def _as_json(summary: dict[str, Any]) -> dict[str, Any]:
    """The summary as it will be read back."""
    try:
        return dict(json.loads(canonical_json(summary)))
    except (ValueError, TypeError) as error:
        raise SpecError(f"the summary must be a JSON object of finite numbers and text: {error}") from None


def _version() -> str:
    try:
        return importlib.metadata.version("pairflow")
    except importlib.metadata.PackageNotFoundError:  # run from a source tree that is not installed
        return "(not installed)"
