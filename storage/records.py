"""What is known of a coupling before it is committed: its header, and the records of its shards."""

from pairflow.errors import ShardConflictError, ShardCorruptError, StoreError
from storage.documents import HEADER, parse_document, read_document, record_name
from storage.filesystem import Folder
from storage.layout import describe, layout_of
from storage.manifest import PairsHeader, ShardPlan, ShardRecord, StoredObject


def stored_header(folder: Folder) -> PairsHeader:
    """The header of a coupling that was begun.

    Raises:
        StoreError: none was.
        ShardCorruptError: the header is damaged.
    """
    stored = read_document(PairsHeader, folder, HEADER)
    if stored is None:
        raise StoreError(f"no pairs were begun at {folder.url}; call begin_pairs first, or run `pairflow pair`")
    return stored


def require_header(folder: Folder, header: PairsHeader) -> PairsHeader:
    """The stored header, which must agree with `header` down to the plan.

    Raises:
        StoreError: the coupling was not begun.
        ShardConflictError: other pairs, or another plan, are there.
    """
    stored = stored_header(folder)
    header.check_same_coupling(stored, folder.path(HEADER))
    if stored.shard_size != header.shard_size:
        raise ShardConflictError(
            f"{folder.path(HEADER)} plans shards of {stored.shard_size} rows, got a header with {header.shard_size}; "
            "go on with the header that begin_pairs returned"
        )
    return stored


def read_record(folder: Folder, header: PairsHeader, shard: ShardPlan) -> ShardRecord | None:
    """The record of a shard, or None if there is none to trust: absent, damaged, or of another plan."""
    name = record_name(header, shard.index)
    data = folder.read(name)
    if data is None:
        return None
    try:
        record = parse_document(ShardRecord, data, folder.path(name))
    except ShardCorruptError:
        return None
    expected = (header.fingerprint, shard, set(layout_of(header).objects(header, shard.index)))
    stated = ShardPlan(record.index, record.start, record.stop)
    return record if (record.fingerprint, stated, {each.name for each in record.objects}) == expected else None


def is_written(folder: Folder, header: PairsHeader, shard: ShardPlan) -> bool:
    """Whether a shard has a record to trust, and its objects their recorded sizes."""
    record = read_record(folder, header, shard)
    return record is not None and all(folder.size(each.name) == each.num_bytes for each in record.objects)


def partial_state(header: PairsHeader, missing: list[ShardPlan]) -> str:
    """How much of a coupling is there, and what to do, for messages."""
    done = header.num_shards - len(missing)
    if not missing:
        return f"all {done} shards are written, but nobody committed them; run `pairflow pair` again"
    some = ", ".join(str(shard.index) for shard in missing[:5]) + (", ..." if len(missing) > 5 else "")
    return (
        f"it is partial, {done} of {header.num_shards} shards (missing: {some}); "
        "run `pairflow pair` again, which makes only what is missing"
    )


def put_metadata(folder: Folder, header: PairsHeader) -> tuple[StoredObject, ...]:
    """Writes the files that belong to no shard where they are not there as they should be."""
    files = layout_of(header).metadata(header)
    for name, data in files.items():
        if folder.read(name) != data:
            folder.write(name, data)
    return tuple(describe(name, data) for name, data in files.items())
