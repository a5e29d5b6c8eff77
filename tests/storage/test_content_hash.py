"""What the hashes cover: equal pairs have equal hashes, whatever the shards and the format; bytes are deterministic."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import storage

from . import storage_formula as formula


def expected_hash(header: storage.PairsHeader, start: int, stop: int) -> str:
    """The content hash as docs/format.md words it, written down a second time."""
    source, target, ids = formula.rows(header, start, stop)
    little = {"sample_id": ids.astype("<i8"), "target": target, "source": source}
    digests = {name: hashlib.sha256(array.tobytes()).hexdigest() for name, array in little.items()}
    document = {"content_version": 1, "dtype": "uint8", "length": 6, "start": start, "stop": stop, **digests}
    return hashlib.sha256(json.dumps(document, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def test_the_content_hash_does_not_depend_on_shards_or_format(tmp_path):
    hashes = set()
    for format in ("zarr", "parquet"):
        for shard_size in (1, 7, 1000):
            store = str(tmp_path / f"{format}-{shard_size}")
            url = formula.write(store, formula.header(format, shard_size))
            manifest = storage.open_pairs(url).manifest
            hashes.add(manifest.content_sha256)
            for shard in manifest.shards:
                assert shard.content_sha256 == expected_hash(manifest.header, shard.start, shard.stop)
    assert hashes == {expected_hash(formula.header("zarr"), 0, 40)}


@pytest.mark.parametrize("column", [0, 1, 2])
def test_one_token_more_changes_the_content_hash(format, tmp_path, column):
    header = formula.header(format, 40)
    arrays = formula.rows(header)
    arrays[column][-1] += 1
    url = storage.pairs_url(tmp_path, header.fingerprint, format)
    storage.begin_pairs(url, header)
    record = storage.write_shard(url, header, 0, *arrays)
    assert record.content_sha256 != expected_hash(header, 0, 40)


def test_source_and_target_are_told_apart(format, tmp_path):
    header = formula.header(format, 40)
    source, target, ids = formula.rows(header)
    url = storage.pairs_url(tmp_path, header.fingerprint, format)
    storage.begin_pairs(url, header)
    assert storage.write_shard(url, header, 0, target, source, ids).content_sha256 != expected_hash(header, 0, 40)


def test_every_byte_is_the_same_in_another_process(format, tmp_path, snapshot):
    wanted = formula.header(format, 7, fingerprint=f"{0:064x}")
    here = Path(formula.write(str(tmp_path / "here"), wanted))
    script = Path(formula.__file__)
    subprocess.run(
        [sys.executable, script, tmp_path / "there", format, "7", "40", "1"],
        check=True,
        capture_output=True,
        env=os.environ | {"PYTHONPATH": str(script.parents[2]), "PYTHONHASHSEED": "7"},
    )
    there = tmp_path / "there" / "pairs" / here.name
    assert snapshot(here) == snapshot(there)
    assert len(snapshot(here)) == (4 + 3 * 6 if format == "zarr" else 6) + 6 + 2


def test_shards_are_written_in_any_order(format, tmp_path, snapshot):
    header = formula.header(format, 7)
    url = storage.pairs_url(tmp_path / "shuffled", header.fingerprint, format)
    storage.begin_pairs(url, header)
    for index in np.random.default_rng(3).permutation(header.num_shards).tolist():
        shard = header.shard(index)
        storage.write_shard(url, header, index, *formula.rows(header, shard.start, shard.stop))
    storage.commit_pairs(url, header, {"seconds": 1.5, "keep_rate": 0.25})
    assert snapshot(url) == snapshot(formula.write(str(tmp_path / "straight"), header))
