"""Coupled pairs on any filesystem: written shard by shard, committed once, open to plain zarr, pandas or DuckDB.

A coupling is one folder, `<store>/pairs/<fingerprint>.zarr` or `.parquet`. Writing it takes three steps, of which
the middle one may run anywhere, in any order, at the same time, and again after a crash:

    url = storage.pairs_url("s3://bucket/store", header.fingerprint, header.format)
    header = storage.begin_pairs(url, header)                # the plan: what is there already wins
    for shard in storage.missing_shards(url, header):        # all of them, or what a dead run left
        storage.write_shard(url, header, shard.index, source, target, sample_id)
    manifest = storage.commit_pairs(url, header, {"seconds": 12.5})

    pairs = storage.open_pairs(url)                          # only ever a whole coupling
    batch = pairs.source[[5, 3, 99]], pairs.target[[5, 3, 99]]
    storage.verify_pairs(url).bad                            # every hash again, each bad shard by name
    storage.restore_pairs(url).bad_shards                    # what sound files say is put back; the rest by number
    for batch in storage.PairReader(pairs, batch_size=1024): ...

Prepared datasets lie beside them, `<store>/datasets/<fingerprint>/`: `write_dataset`, `find_dataset`, `read_dataset`.

The manifest is written last and is never changed: a coupling with a manifest is whole, one without is partial.
docs/format.md describes every file. Nothing here reads pickles or keeps credentials, and only housekeeping
(`take_inventory`) and who looks for something (`search_pairs`) list folders. May import `pairflow.spec` and
`pairflow.errors`; no torch, and nothing of the flows.
"""

from storage.batches import PairBatch, PairReader
from storage.commit import commit_pairs
from storage.dataset_manifest import DatasetHeader, DatasetManifest, SourceRecord
from storage.datasets import (
    absent_of_dataset,
    dataset_url,
    discard_dataset,
    find_dataset,
    find_dataset_header,
    parse_dataset_url,
    read_dataset,
    search_datasets,
    shard_size_for,
    verify_dataset,
    write_dataset,
)
from storage.export import export_pairs
from storage.filesystem import Folder, join, open_folder
from storage.garbage import Garbage, find_garbage, remove
from storage.inventory import Inventory, PreparedData, StoredCoupling, StoredJob, take_inventory
from storage.listing import list_files, list_names
from storage.manifest import (
    FORMAT_VERSION,
    Manifest,
    PairsHeader,
    ShardPlan,
    ShardRecord,
    StoredObject,
    plan_shards,
    token_dtype,
)
from storage.presence import AbsentFile, absent_files, search_pairs
from storage.reader import PairColumn, Pairs, open_pairs
from storage.repair import Restoration, restore_pairs
from storage.store import (
    begin_pairs,
    find_header,
    find_manifest,
    find_pairs,
    has_manifest,
    missing_shards,
    pairs_url,
    read_header,
    store_of,
    write_shard,
)
from storage.verify import BadShard, VerifyReport, verify_pairs

__all__ = [
    "FORMAT_VERSION",
    "AbsentFile",
    "BadShard",
    "DatasetHeader",
    "DatasetManifest",
    "Folder",
    "Garbage",
    "Inventory",
    "Manifest",
    "PairBatch",
    "PairColumn",
    "PairReader",
    "Pairs",
    "PairsHeader",
    "PreparedData",
    "Restoration",
    "ShardPlan",
    "ShardRecord",
    "SourceRecord",
    "StoredCoupling",
    "StoredJob",
    "StoredObject",
    "VerifyReport",
    "absent_files",
    "absent_of_dataset",
    "begin_pairs",
    "commit_pairs",
    "dataset_url",
    "discard_dataset",
    "export_pairs",
    "find_dataset",
    "find_dataset_header",
    "find_garbage",
    "find_header",
    "find_manifest",
    "find_pairs",
    "has_manifest",
    "join",
    "list_files",
    "list_names",
    "missing_shards",
    "open_folder",
    "open_pairs",
    "pairs_url",
    "parse_dataset_url",
    "plan_shards",
    "read_dataset",
    "read_header",
    "remove",
    "restore_pairs",
    "search_datasets",
    "search_pairs",
    "shard_size_for",
    "store_of",
    "take_inventory",
    "token_dtype",
    "verify_dataset",
    "verify_pairs",
    "write_dataset",
    "write_shard",
]
