"""A coupling written again in another format or cut: the same pairs, the same fingerprint and content hash."""

import os

from pairflow.errors import ShardConflictError, SpecError
from storage.commit import commit_pairs
from storage.manifest import PairsFormat, PairsHeader
from storage.reader import open_pairs
from storage.store import begin_pairs, missing_shards, pairs_url, write_shard


def export_pairs(
    url: str | os.PathLike[str],
    format: PairsFormat,
    *,
    store_url: str | os.PathLike[str],
    shard_size: int | None = None,
    progress: bool = True,
) -> str:
    """Writes a coupling once more and returns the copy's URL; broken off, it goes on where it was.

    One shard of the source is held, and one of the copy.

    Args:
        url: of the pairs.
        format: of the copy.
        store_url: where the copy goes, to `<store>/pairs/<fingerprint>.<format>`.
        shard_size: rows a shard of the copy; default as in the source, or as an earlier try planned it.
        progress: shows a bar if it takes more than a second.

    Raises:
        StoreError: the pairs are not whole, or a store cannot be read or written.
        SpecError: the copy would lie where the source lies, or shards of no rows are asked for.
        ShardConflictError: a copy with another shard size, or other pairs, are there.
        ShardCorruptError: the source is damaged.
    """
    from tqdm import tqdm

    if shard_size is not None and shard_size < 1:
        raise SpecError(f"shard_size must be at least 1, got {shard_size}")
    pairs = open_pairs(url)
    manifest = pairs.manifest
    copy_url = pairs_url(store_url, manifest.fingerprint, format)
    if copy_url == pairs.url:
        raise SpecError(
            f"the copy would lie where the pairs lie, {copy_url}; choose the other format, or another store with --to"
        )
    wanted = {"format": format, "shard_size": manifest.shard_size if shard_size is None else shard_size}
    header = begin_pairs(copy_url, PairsHeader(**{**dict(manifest.header), **wanted}))
    if shard_size is not None and header.shard_size != shard_size:
        raise ShardConflictError(
            f"{copy_url} is there with shards of {header.shard_size} rows, asked for {shard_size}; remove it, or "
            "choose another store with --to"
        )
    for shard in tqdm(missing_shards(copy_url, header), "export", unit="shard", disable=not progress, delay=1):
        rows = slice(shard.start, shard.stop)
        write_shard(copy_url, header, shard.index, pairs.source[rows], pairs.target[rows], pairs.sample_id[rows])
    copy = commit_pairs(copy_url, header, dict(manifest.summary), progress=progress)
    if copy.content_sha256 != manifest.content_sha256:
        raise ShardConflictError(
            f"{copy_url} holds other pairs ({copy.content_sha256}) than {pairs.url} ({manifest.content_sha256}) under "
            "the same fingerprint: were both made by one version?"
        )
    return copy_url
