"""Two writers of one coupling at once: both succeed, or one finds it done; never a mixture."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import storage
from pairflow.errors import ShardConflictError

from . import storage_formula as formula

SCRIPT = Path(formula.__file__)
NUM_COUPLINGS = 20


def test_two_processes_with_different_plans(format, tmp_path):
    """Twenty couplings one after the other, in step: the second writer meets the first at every stage."""
    environment = os.environ | {"PYTHONPATH": str(SCRIPT.parents[2])}
    writers = [
        subprocess.Popen(
            [sys.executable, SCRIPT, tmp_path / "both", format, shard_size, "40", str(NUM_COUPLINGS)],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for shard_size in ("7", "10")
    ]
    for writer in writers:
        _, errors = writer.communicate(timeout=120)
        assert writer.returncode == 0, errors
    for k in range(NUM_COUPLINGS):
        url = storage.pairs_url(tmp_path / "both", f"{k:064x}", format)
        assert storage.verify_pairs(url, progress=False).bad == []
        pairs = storage.open_pairs(url)
        np.testing.assert_array_equal(np.asarray(pairs.source), formula.rows(pairs.manifest)[0])
        assert not list(Path(url).rglob(".*"))


def test_many_threads_write_one_coupling(format, store):
    header = formula.header(format, 5, num_rows=60)
    with ThreadPoolExecutor(8) as pool:
        urls = set(pool.map(lambda _: formula.write(store, header), range(8)))
    (url,) = urls
    assert storage.verify_pairs(url, progress=False).ok


def test_many_threads_read_one_coupling(format, tmp_path, monkeypatch):
    monkeypatch.setattr("storage.reader._CACHE_BYTES", 200)
    pairs = storage.open_pairs(formula.write(str(tmp_path), formula.header(format, 3)))
    source, target, _ = formula.rows(pairs.manifest)

    def read(seed: int) -> bool:
        order = np.random.default_rng(seed).permutation(40)
        return bool((pairs.source[order] == source[order]).all() and (pairs.target[order] == target[order]).all())

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(read, range(10)))


def test_the_first_plan_wins(format, store):
    url = storage.pairs_url(store, "ab" * 32, format)
    first = storage.begin_pairs(url, formula.header(format, 7))
    assert storage.begin_pairs(url, formula.header(format, 10)) == first
    with pytest.raises(ShardConflictError, match="shards of 7 rows, got a header with 10"):
        storage.missing_shards(url, formula.header(format, 10))


def test_a_lost_header_of_committed_pairs_comes_back_with_its_plan(format, tmp_path):
    url = formula.write(str(tmp_path), formula.header(format, 7))
    (Path(url) / "_header.json").unlink()
    assert storage.begin_pairs(url, formula.header(format, 10)).shard_size == 7
    assert storage.verify_pairs(url, progress=False).ok


def test_where_the_data_came_from_is_no_conflict(format, store):
    """Two machines may hold the same data, of one digest, in different places."""
    url = storage.pairs_url(store, "ab" * 32, format)
    here, there = (
        formula.header(format, dataset={"digest": "cd" * 32, "source": source}) for source in ("/here", "/there")
    )
    shards = here.plan()
    assert storage.begin_pairs(url, here) == storage.begin_pairs(url, there) == here
    rows = formula.rows(here, 0, 7)
    assert storage.write_shard(url, there, 0, *rows) == storage.write_shard(url, here, 0, *rows)
    assert storage.missing_shards(url, there) == list(shards[1:])


@pytest.mark.parametrize(
    "change",
    [
        {"fingerprint": "ef" * 32},
        {"num_rows": 41},
        {"length": 7},
        {"vocab_size": 44},
        {"engine": "cuda/1"},
        {"spec": {"num_steps": 21}},
        {"dataset": {"digest": "0"}},
        {"sources_per_target": 2},
        {"vocab": [str(i) for i in range(43)]},
    ],
)
def test_another_coupling_in_the_same_place_is_a_conflict(format, tmp_path, change):
    url = storage.pairs_url(tmp_path, "ab" * 32, format)
    header = storage.begin_pairs(url, formula.header(format))
    other = formula.header(format, **change)
    arrays = formula.rows(header, 0, 7)
    with pytest.raises(
        ShardConflictError, match=rf"_header.json belongs to another coupling: its .*{next(iter(change))}"
    ):
        storage.begin_pairs(url, other)
    for attempt in (
        lambda: storage.missing_shards(url, other),
        lambda: storage.write_shard(url, other, 0, *arrays),
        lambda: storage.commit_pairs(url, other, {}),
    ):
        with pytest.raises(ShardConflictError):
            attempt()


def test_a_shard_with_other_content_is_a_conflict(format, tmp_path):
    """Before and after the commit; the same content may be put again at any time."""
    header = formula.header(format)
    url = storage.pairs_url(tmp_path, header.fingerprint, format)
    storage.begin_pairs(url, header)
    source, target, ids = formula.rows(header, 0, 7)
    first = storage.write_shard(url, header, 0, source, target, ids)
    for committed in (False, True):
        if committed:
            formula.write(str(tmp_path), header)
        assert storage.write_shard(url, header, 0, source, target, ids) == first
        with pytest.raises(ShardConflictError, match=r"shard 0 .* other content"):
            storage.write_shard(url, header, 0, target, source, ids)
    assert storage.verify_pairs(url, progress=False).ok
