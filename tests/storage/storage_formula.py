"""A coupling whose every token follows from its row and position; run as a script, it writes one.

`python storage_formula.py STORE FORMAT SHARD_SIZE ROWS COUPLINGS` writes couplings one after the other and prints a
line after each shard and before the commit, so that a test can kill it between and within them.
"""

import sys

import numpy as np

import storage

NUM_ROWS, LENGTH, VOCAB_SIZE = 40, 6, 43


def header(format: str, shard_size: int = 7, **changes: object) -> storage.PairsHeader:
    fields = {
        "fingerprint": "ab" * 32,
        "format": format,
        "num_rows": NUM_ROWS,
        "length": LENGTH,
        "vocab_size": VOCAB_SIZE,
        "shard_size": shard_size,
        "spec": {"kind": "closed_form", "num_steps": 20, "seed": 0, "temperature": 1.0},
        "dataset": {"name": "formula", "digest": "cd" * 32},
        "engine": "cpu/1",
    }
    return storage.PairsHeader(**(fields | changes))


def rows(header: storage.PairsHeader, start: int = 0, stop: int | None = None) -> tuple[np.ndarray, ...]:
    """(source, target, sample_id) of rows `start` to `stop`."""
    i = np.arange(start, header.num_rows if stop is None else stop, dtype=np.int64)
    row, position = i[:, None], np.arange(header.length)
    target = (row * 7 + position * 3) % header.vocab_size
    source = (row * 11 + position * 5 + row // 13 + 1) % header.vocab_size
    return source.astype(header.dtype), target.astype(header.dtype), i


def write_missing(url: str, header: storage.PairsHeader, say: bool = False) -> int:
    """Writes what is missing; returns how many shards that was."""
    missing = storage.missing_shards(url, header)
    for shard in missing:
        storage.write_shard(url, header, shard.index, *rows(header, shard.start, shard.stop))
        if say:
            print(f"shard {shard.index}", flush=True)
    return len(missing)


def write(store: str, wanted: storage.PairsHeader, say: bool = False) -> str:
    """Writes and commits a coupling, or what is missing of it; returns its URL."""
    url = storage.pairs_url(store, wanted.fingerprint, wanted.format)
    planned = storage.begin_pairs(url, wanted)
    write_missing(url, planned, say)
    if say:
        print("commit", flush=True)
    storage.commit_pairs(url, planned, {"seconds": 1.5, "keep_rate": 0.25}, progress=False)
    return url


if __name__ == "__main__":
    store, format, shard_size, num_rows, couplings = sys.argv[1:]
    for k in range(int(couplings)):
        write(store, header(format, int(shard_size), num_rows=int(num_rows), fingerprint=f"{k:064x}"), say=True)
