"""How soon rows of a store are there: random access, the reader's batches, and a coupling of many shards opened."""

import time
from pathlib import Path
from typing import Any

import numpy as np
from store_pairs import Arrays, commit, header_of, seconds, write

import storage
from storage.documents import render
from storage.layout import describe, layout_of
from storage.manifest import Manifest, StoredObject

BATCH_SIZE = 1024


def reading(
    name: str, arrays: Arrays, vocab_size: int, shard_sizes: list[int], repeats: int, root: Path
) -> list[dict[str, Any]]:
    """Random access, and the reader's batches; each with the processor time that it takes as well."""
    rng = np.random.default_rng(0)
    found = []
    for format in ("zarr", "parquet"):
        for size in shard_sizes:
            header = header_of(name, arrays, vocab_size, format, size)
            url = storage.pairs_url(root / "reader", header.fingerprint, header.format)
            write(root / "reader", header, arrays)
            commit(url, header)
            shard = header.shard(min(1, header.num_shards - 1))
            rows = rng.integers(shard.start, shard.stop, BATCH_SIZE)

            accesses: list[float] = []

            def access(url: str = url, rows: np.ndarray = rows, accesses: list[float] = accesses) -> None:
                pairs = storage.open_pairs(url)  # nothing is kept from the turn before
                opened = time.perf_counter()
                pairs.source[rows], pairs.target[rows]
                accesses.append(time.perf_counter() - opened)

            seconds({"access": access}, repeats)
            row: dict[str, Any] = {"what": "reader", "store": f"{format} {size:,}"}
            row["random_access_ms"] = float(np.median(accesses)) * 1e3
            pairs = storage.open_pairs(url)
            for placement, options in (("resident", {}), ("streamed", {"resident_bytes": 0, "window_bytes": 2 << 20})):
                reader = storage.PairReader(pairs, batch_size=BATCH_SIZE, **options)
                walls, cpus = [], []
                for epoch in range(repeats + 1):
                    wall, cpu = time.perf_counter(), time.process_time()
                    seen = sum(len(batch) for batch in reader)
                    assert seen == len(pairs)
                    if epoch:
                        walls.append(seen / (time.perf_counter() - wall))
                        cpus.append(seen / (time.process_time() - cpu))
                row[f"{placement}_pairs_per_s"] = float(np.median(walls))
                row[f"{placement}_pairs_per_core_s"] = float(np.median(cpus))
            found.append(row)
    return found


def opening(repeats: int, root: Path, num_shards: int = 10_000) -> list[dict[str, Any]]:
    """Opening a coupling of many shards: its manifest is real, its shards are not read and are not there."""
    found = []
    for format in ("zarr", "parquet"):
        arrays = {"target": np.zeros((num_shards, 32), np.uint8)}
        header = header_of("none", arrays, 43, format, 1)
        layout = layout_of(header)
        records = tuple(
            storage.ShardRecord(
                fingerprint=header.fingerprint,
                index=index,
                start=index,
                stop=index + 1,
                objects=tuple(
                    StoredObject(name=name, num_bytes=100, sha256="ab" * 32) for name in layout.objects(header, index)
                ),
                content_sha256="ab" * 32,
            )
            for index in range(num_shards)
        )
        files = layout.metadata(header)
        manifest = Manifest(
            **header.model_dump(),
            arrays={},
            shards=records,
            metadata=tuple(describe(name, data) for name, data in files.items()),
            content_sha256="ab" * 32,
            summary={},
            created_by="benchmark",
        )
        place = storage.open_folder(root / f"opening.{format}")
        for name, data in {**files, "_manifest.json": render(manifest)}.items():
            place.write(name, data)
        taken = seconds({"open": lambda url=place.url: storage.open_pairs(url)}, repeats)["open"]
        found.append({"what": "opening", "format": format, "num_shards": num_shards, "seconds": taken})
    return found
