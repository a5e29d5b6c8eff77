"""Writing a coupling: begin, then shards in any order; `storage.commit` ends it."""

import os
import re
from typing import get_args

import numpy.typing as npt

from pairflow.errors import ShardConflictError, SpecError, StoreError
from storage.ahead import in_order
from storage.content import check_columns, content_sha256
from storage.documents import HEADER, MANIFEST, read_document, record_name, render
from storage.filesystem import Folder, join, open_folder
from storage.layout import describe, layout_of
from storage.manifest import Manifest, PairsFormat, PairsHeader, ShardPlan, ShardRecord, check_fingerprint
from storage.records import is_written, put_metadata, read_record, require_header, stored_header

Url = str | os.PathLike[str]

_FORMATS = get_args(PairsFormat)
_PAIRS_URL = re.compile(rf"(.*)/pairs/[0-9a-f]{{64}}\.(?:{'|'.join(_FORMATS)})", re.DOTALL)


def pairs_url(store_url: Url, fingerprint: str, format: PairsFormat) -> str:
    """Where a coupling lies in a store: `<store>/pairs/<fingerprint>.zarr` or `.parquet`.

    Raises:
        StoreError: the store's URL is empty, carries a password, or its filesystem is unknown.
        SpecError: the fingerprint or the format is none.
    """
    if format not in _FORMATS:
        raise SpecError(f"format must be {' or '.join(_FORMATS)}, got {format!r}")
    return join(store_url, "pairs", f"{check_fingerprint(fingerprint)}.{format}")


def find_pairs(store_url: Url, fingerprint: str) -> str | None:
    """URL of a committed coupling in a store, in whichever format; None if there is none.

    Raises:
        StoreError: the store cannot be read.
        SpecError: the fingerprint is none.
    """
    urls = (pairs_url(store_url, fingerprint, format) for format in get_args(PairsFormat))
    return next((url for url in urls if has_manifest(url)), None)


def store_of(url: Url) -> str:
    """The store that a coupling lies in: `pairs_url` the other way round.

    Raises:
        StoreError: it does not lie where `pairs_url` puts couplings.
    """
    found = _PAIRS_URL.fullmatch(open_folder(url).url)
    if found is None:
        raise StoreError(
            f"{os.fspath(url)} does not lie in a store, which would be STORE/pairs/<fingerprint>.zarr or .parquet; "
            "move the folder there"
        )
    return found[1]


def find_manifest(url: Url) -> Manifest | None:
    """The manifest of a committed coupling, or None if nothing, or only a part, is there.

    Raises:
        StoreError: the store cannot be read.
        ShardCorruptError: the manifest is damaged.
        ManifestVersionError: another format version wrote it.
    """
    return read_document(Manifest, open_folder(url), MANIFEST)


def read_header(url: Url) -> PairsHeader:
    """The header of a coupling that was begun, committed or not.

    Raises:
        StoreError: none was, or the store cannot be read.
        ShardCorruptError: the header is damaged.
        ManifestVersionError: another format version wrote it.
    """
    return stored_header(open_folder(url))


def find_header(url: Url) -> PairsHeader | None:
    """The header of a coupling that was begun, or None if there is none.

    Raises:
        StoreError: the store cannot be read.
        ShardCorruptError: the header is damaged.
        ManifestVersionError: another format version wrote it.
    """
    return read_document(PairsHeader, open_folder(url), HEADER)


def has_manifest(url: Url) -> bool:
    """Whether a coupling was committed; its manifest may be damaged since.

    Raises:
        StoreError: the store cannot be read.
    """
    return open_folder(url).size(MANIFEST) is not None


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
    put_metadata(folder, stored)
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
    plan = header.plan()
    written = in_order(lambda shard: is_written(folder, header, shard), plan)
    return [shard for shard, there in zip(plan, written, strict=True) if not there]


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
    folder.write_all(encoded)
    folder.write(record_name(header, index), render(record))
    return record


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
