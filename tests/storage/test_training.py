"""A training reads a coupling from its store: rows in any order, and the batches of arrays in memory."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import storage
from pairflow.batches import Batches, data_digest
from pairflow.errors import ShardCorruptError, SpecError
from pairflow.replicas import Replica
from pairflow.row_source import RowSource, read_all, survey
from pairflow.streaming import StreamedBatches

from . import storage_formula as formula

NUM_ROWS, SHARD_SIZE = 53, 12
OPTIONS: dict[str, Any] = {"batch_size": 8, "seed": 3, "device": torch.device("cpu")}


@pytest.fixture
def header(format) -> storage.PairsHeader:
    return formula.header(format, SHARD_SIZE, num_rows=NUM_ROWS)


@pytest.fixture
def pairs(store, header) -> storage.Pairs:
    return storage.open_pairs(formula.write(store, header))


def batches_of(rows: RowSource, rank: int = 0, world_size: int = 1) -> StreamedBatches:
    return StreamedBatches(rows, num_steps=20, memory_bytes=2500, replica=Replica(rank, world_size), **OPTIONS)


@pytest.mark.parametrize("first", [0, 5, 13])
@pytest.mark.parametrize("world_size", [1, 2])
def test_batches_from_the_store_are_those_of_arrays(pairs, header, first, world_size):
    source, target, _ = formula.rows(header)
    resident = Batches(target, source, **OPTIONS)
    readers = [batches_of(pairs, rank, world_size) for rank in range(world_size)]
    for step in range(first, 20):
        parts = [reader.batch(step) for reader in readers]
        for column, expected in enumerate(resident.batch(step)):
            tokens = [part[column] for part in parts]
            mine = [Replica(rank, world_size).share(each) for rank, each in enumerate(tokens) if each is not None]
            assert expected is not None
            assert torch.equal(torch.cat(mine), expected)
    for reader in readers:
        reader.close()


def test_the_whole_is_surveyed_and_read_shard_by_shard(pairs, header):
    source, target, _ = formula.rows(header)
    assert isinstance(pairs, RowSource)
    assert survey(pairs, header.vocab_size) == data_digest(target, source)
    for got, expected in zip(read_all(pairs), (target, source), strict=True):
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("shard_size", [12, 13, 2048, 4096])
def test_some_rows_of_a_shard(format, tmp_path, shard_size):
    """Shards of one inner chunk and of several, full and cut short; rows in any order, twice, or none."""
    header = formula.header(format, shard_size, num_rows=2 * shard_size + 5, vocab_size=300, dtype="uint16")
    pairs = storage.open_pairs(formula.write(str(tmp_path), header))
    rng = np.random.default_rng(0)
    for index in range(3):
        plan = header.shard(index)
        columns = dict(zip(("source", "target", "sample_id"), formula.rows(header, plan.start, plan.stop), strict=True))
        for rows in (np.arange(plan.num_rows), rng.integers(plan.num_rows, size=40), np.empty(0, np.int64)):
            found = pairs.take(index, rows)
            assert found.keys() == columns.keys()
            for name, array in found.items():
                np.testing.assert_array_equal(array, columns[name][rows])
                assert array.dtype == columns[name].dtype
    assert pairs.take(0, np.array([1]), ("source",)).keys() == {"source"}
    for row in (plan.num_rows, -1):
        with pytest.raises(SpecError, match="shard 2 has rows 0 to 4, got"):
            pairs.take(2, np.array([row]))


def test_a_damaged_shard_ends_the_training_where_it_is_met(format, tmp_path):
    url = formula.write(str(tmp_path), formula.header(format, SHARD_SIZE, num_rows=NUM_ROWS))
    damaged = Path(url) / ("source/c.3.0" if format == "zarr" else "part-00003.parquet")
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(data)
    with (
        batches_of(storage.open_pairs(url)) as batches,
        pytest.raises(ShardCorruptError, match=f"shard 3.*{damaged.name}"),
    ):
        batches.batch(0)
