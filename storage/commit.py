"""The commit of a coupling: all of it read once, then its manifest written."""

import importlib.metadata
import json
import os
from collections.abc import Iterator, Sequence
from typing import Any

from pairflow.errors import ShardCorruptError, SpecError, StoreError
from pairflow.spec import canonical_json
from storage.ahead import in_order
from storage.content import COLUMNS, Columns, ContentHash, column_dtype, column_shape
from storage.documents import MANIFEST, read_document, record_name, render
from storage.filesystem import Folder, open_folder
from storage.layout import read_shard
from storage.manifest import ArrayInfo, Manifest, PairsHeader, ShardPlan, ShardRecord, StoredObject
from storage.records import partial_state, put_metadata, read_record, require_header
from storage.store import missing_shards


def commit_pairs(
    url: str | os.PathLike[str], header: PairsHeader, summary: dict[str, Any], *, progress: bool = True
) -> Manifest:
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
    manifest = assemble_manifest(header, shards, put_metadata(folder, header), content.hexdigest(), summary)
    folder.settle(names_of(manifest))
    if not folder.create(MANIFEST, render(manifest)):
        committed = read_document(Manifest, folder, MANIFEST)
    return committed or manifest


def assemble_manifest(
    header: PairsHeader,
    shards: Sequence[ShardRecord],
    metadata: Sequence[StoredObject],
    content_sha256: str,
    summary: dict[str, Any],
    created_by: str | None = None,
) -> Manifest:
    """The manifest of a coupling whose shards were all read and found sound."""
    return Manifest(
        **{name: getattr(header, name) for name in PairsHeader.model_fields},
        arrays={
            name: ArrayInfo(shape=column_shape(header, name, header.num_rows), dtype=column_dtype(header, name).name)
            for name in COLUMNS
        },
        shards=tuple(shards),
        metadata=tuple(metadata),
        content_sha256=content_sha256,
        summary=summary,
        created_by=created_by or _created_by(),
    )


def names_of(manifest: Manifest) -> Iterator[str]:
    """The files of a coupling but for its header and the manifest itself."""
    for record in manifest.shards:
        yield record_name(manifest, record.index)
        yield from (each.name for each in record.objects)
    yield from (each.name for each in manifest.metadata)


def _read_in_order(folder: Folder, header: PairsHeader, content: ContentHash, progress: bool) -> list[ShardRecord]:
    """Feeds all shards to `content`; returns their records."""
    from tqdm import tqdm

    def read(shard: ShardPlan) -> tuple[ShardRecord, Columns]:
        record = read_record(folder, header, shard)
        if record is None:
            raise StoreError(f"cannot commit {folder.url}: {partial_state(header, [shard])}")
        try:
            return record, read_shard(folder, header, record)
        except ShardCorruptError as error:
            folder.delete(record_name(header, shard.index))
            raise ShardCorruptError(
                f"cannot commit: {error}. It counts as missing now: run `pairflow pair` again, which makes it anew"
            ) from error

    records = []
    plan = tqdm(header.plan(), "commit", unit="shard", disable=not progress, delay=1)
    for record, columns in in_order(read, plan):
        content.update(columns)
        records.append(record)
    return records


def _as_json(summary: dict[str, Any]) -> dict[str, Any]:
    """The summary as it will be read back."""
    try:
        return dict(json.loads(canonical_json(summary)))
    except (ValueError, TypeError) as error:
        raise SpecError(f"the summary must be a JSON object of finite numbers and text: {error}") from None


def _created_by() -> str:
    try:
        return f"pairflow {importlib.metadata.version('pairflow')}"
    except importlib.metadata.PackageNotFoundError:  # run from a source tree that is not installed
        return "pairflow (not installed)"
