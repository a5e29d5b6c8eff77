"""PairReader: its order, compared unsorted, for every world size, batch size, resume point; resident and streamed."""

import json
import pickle
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import storage
from pairflow.errors import ShardCorruptError, SpecError

from . import storage_formula as formula

NUM_ROWS, SHARD_SIZE = 53, 7
ROW_BYTES = 2 * formula.LENGTH
ONE_WINDOW: dict[str, Any] = {"window_bytes": NUM_ROWS * ROW_BYTES}
SEVERAL_WINDOWS: dict[str, Any] = {"window_bytes": 2 * SHARD_SIZE * ROW_BYTES}
BATCH_SIZES = (1, 3, 4, 8, 19, NUM_ROWS, 64)
WORLD_SIZES = (1, 2, 3, 4)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> dict[str, storage.Pairs]:
    store = str(tmp_path_factory.mktemp("store"))
    headers = (formula.header(format, SHARD_SIZE, num_rows=NUM_ROWS) for format in ("zarr", "parquet"))
    return {header.format: storage.open_pairs(formula.write(store, header)) for header in headers}


@pytest.fixture(params=[ONE_WINDOW, SEVERAL_WINDOWS], ids=["one window", "several windows"])
def window(request) -> dict[str, int]:
    return request.param


@pytest.fixture(params=["resident", "streamed"])
def placement(request) -> dict[str, int]:
    return {} if request.param == "resident" else {"resident_bytes": 0}


def order_of(pairs: storage.Pairs, epoch: int, **options: Any) -> list[int]:
    """The order of a whole epoch, by its definition: all windows, no batches."""
    shuffle = storage.PairReader(pairs, batch_size=1, **options).shuffle
    return [row for window in shuffle.windows(epoch) for row in shuffle.rows(epoch, window).tolist()]


def check_rows(batch: storage.PairBatch, header: storage.PairsHeader) -> None:
    source, target, _ = formula.rows(header)
    np.testing.assert_array_equal(batch.source, source[batch.rows])
    np.testing.assert_array_equal(batch.target, target[batch.rows])
    assert batch.source.dtype == batch.target.dtype == np.uint8
    assert len(batch) == len(batch.rows)


@pytest.mark.parametrize(
    ("batch_size", "drop_last"),
    [(size, drop_last) for size in BATCH_SIZES for drop_last in (False, True) if size <= NUM_ROWS or not drop_last],
)
def test_ranks_together_give_the_same_batches_for_every_number_of_them(pairs, window, placement, batch_size, drop_last):
    for epoch in range(2):
        expected = order_of(pairs["parquet"], epoch, **window)
        used = NUM_ROWS - (NUM_ROWS % batch_size if drop_last else 0)
        batches = [expected[start : min(start + batch_size, used)] for start in range(0, used, batch_size)]
        for world_size in WORLD_SIZES:
            readers = [
                storage.PairReader(
                    pairs["parquet"],
                    batch_size=batch_size,
                    rank=rank,
                    world_size=world_size,
                    drop_last=drop_last,
                    **window,
                    **placement,
                )
                for rank in range(world_size)
            ]
            for reader in readers:
                reader.load_state_dict(reader.state_dict() | {"epoch": epoch})
            parts = [list(reader) for reader in readers]
            assert {len(each) for each in parts} == {len(batches)}
            for step, batch in enumerate(batches):
                step_parts = [each[step] for each in parts]
                assert [row for part in step_parts for row in part.rows.tolist()] == batch
                sizes = [len(part) for part in step_parts]
                assert max(sizes) - min(sizes) <= 1
                for part in step_parts:
                    check_rows(part, pairs["parquet"].manifest)


@pytest.mark.parametrize("batch_size", BATCH_SIZES)
def test_resuming_at_every_step_with_every_other_number_of_ranks(pairs, window, batch_size):
    """A state taken after each batch of an epoch, loaded by as many ranks as there may be: the rest, in order."""
    expected = order_of(pairs["zarr"], 0, seed=5, **window)
    reader = storage.PairReader(pairs["zarr"], batch_size=batch_size, seed=5, **window)
    states = [reader.state_dict()]
    for _ in reader.rows():
        states.append(json.loads(json.dumps(reader.state_dict())))
    assert [state["step"] for state in states] == [*range(reader.steps_per_epoch), 0]
    assert [state["epoch"] for state in states] == [*[0] * reader.steps_per_epoch, 1]
    for step, state in enumerate(states[:-1]):
        for world_size in WORLD_SIZES:
            parts = []
            for rank in range(world_size):
                resumed = storage.PairReader(
                    pairs["zarr"], batch_size=batch_size, seed=5, rank=rank, world_size=world_size, **window
                )
                resumed.load_state_dict(state)
                assert len(resumed) == resumed.steps_per_epoch - step
                parts.append([rows.tolist() for rows in resumed.rows()])
                assert (resumed.epoch, resumed.step) == (1, 0)
            rest = [row for step_parts in zip(*parts, strict=True) for part in step_parts for row in part]
            assert rest == expected[step * batch_size :]


@pytest.mark.parametrize("world_size", WORLD_SIZES)
@pytest.mark.parametrize("batch_size", [4, 19])
def test_resuming_gives_the_same_arrays(format, pairs, window, placement, world_size, batch_size):
    """Broken off after each batch and read on by a new reader, over two epochs; every row is checked."""
    for rank in range(world_size):
        options = {"batch_size": batch_size, "rank": rank, "world_size": world_size, **window, **placement}
        undisturbed = storage.PairReader(pairs[format], **options)
        expected = [batch for _ in range(2) for batch in undisturbed]
        state: dict[str, Any] = {}
        for wanted in expected:
            reader = storage.PairReader(pairs[format], **options)
            if state:
                reader.load_state_dict(state)
            batches = iter(reader)
            batch = next(batches)
            state = reader.state_dict()
            batches.close()  # type: ignore[attr-defined]
            assert batch.rows.tolist() == wanted.rows.tolist()
            check_rows(batch, pairs[format].manifest)
            check_rows(wanted, pairs[format].manifest)
        assert (state["epoch"], state["step"]) == (2, 0)


def test_an_epoch_visits_every_row_once(pairs, window, placement):
    reader = storage.PairReader(pairs["zarr"], batch_size=8, **window, **placement)
    epochs = [[row for batch in reader for row in batch.rows.tolist()] for _ in range(4)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(NUM_ROWS))
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_the_order_depends_on_its_key_alone(pairs, window, placement, tmp_path):
    """Not on the format, on where the rows are kept, or, in one window, on the cut into shards; on seed and epoch."""

    def rows(opened: storage.Pairs, **options: int) -> list[int]:
        reader = storage.PairReader(opened, batch_size=10, **{**window, **placement, **options})
        return [row for batch in reader for row in batch.rows.tolist()]

    expected = order_of(pairs["zarr"], 0, **window)
    assert rows(pairs["zarr"]) == rows(pairs["parquet"]) == expected
    assert rows(pairs["zarr"], seed=1) != expected
    other = storage.open_pairs(formula.write(str(tmp_path), formula.header("parquet", 5, num_rows=NUM_ROWS)))
    assert (rows(other) == expected) == (window is ONE_WINDOW)


def test_torch_takes_the_arrays_as_they_are(pairs, window, placement):
    """Without a copy and, since warnings are errors, without the warning about memory that may not be written."""
    reader = storage.PairReader(pairs["zarr"], batch_size=20, **window, **placement)
    first, second, *_ = list(reader)
    kept = second.source.copy()
    tensor = torch.from_numpy(first.source)
    assert tensor.data_ptr() == first.source.ctypes.data
    tensor.zero_()
    assert not first.source.any()
    np.testing.assert_array_equal(second.source, kept)
    for batch in reader:
        check_rows(batch, pairs["zarr"].manifest)  # what was written into a batch reached no other


def test_pairs_on_a_device_are_indexed_by_the_same_rows(pairs, window):
    options = {"batch_size": 9, "rank": 1, "world_size": 2, **window}
    source = torch.from_numpy(pairs["zarr"].source[:])
    for rows, batch in zip(
        storage.PairReader(pairs["zarr"], **options).rows(), storage.PairReader(pairs["zarr"], **options), strict=True
    ):
        assert torch.equal(source[torch.from_numpy(rows)], torch.from_numpy(batch.source))


def test_streaming_holds_two_windows_and_not_the_coupling(tmp_path):
    header = formula.header("parquet", 1000, num_rows=40_000, length=64)
    pairs = storage.open_pairs(formula.write(str(tmp_path), header))
    whole = 40_000 * 128
    next(iter(storage.PairReader(pairs, batch_size=256, window_bytes=whole // 20, resident_bytes=0)))  # imports
    tracemalloc.start()
    try:
        reader = storage.PairReader(pairs, batch_size=256, window_bytes=whole // 20, resident_bytes=0)
        assert sum(len(batch) for batch in reader) == 40_000
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < whole / 4


def test_a_damaged_shard_stops_the_reader_where_it_is_met(format, tmp_path, placement):
    url = formula.write(str(tmp_path), formula.header(format, SHARD_SIZE, num_rows=NUM_ROWS))
    damaged = Path(url) / ("source/c.3.0" if format == "zarr" else "part-00003.parquet")
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(data)
    reader = storage.PairReader(storage.open_pairs(url), batch_size=4, **SEVERAL_WINDOWS, **placement)
    seen: list[int] = []
    with pytest.raises(ShardCorruptError, match=rf"shard 3 is damaged: .*{damaged.name}"):
        seen.extend(row for batch in reader for row in batch.rows.tolist())
    assert not set(seen) & set(range(21, 28))


def test_reading_never_unpickles(pairs, placement, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("unpickled")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    batches = storage.PairReader(pairs["zarr"], batch_size=8, **placement)
    assert sum(len(batch) for batch in batches) == NUM_ROWS
    for path in Path(storage.__file__).parent.glob("*.py"):
        assert "import pickle" not in path.read_text()
        assert "allow_pickle" not in path.read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must be an integer from 1"),
        ({"batch_size": 8.0}, "got 8.0"),
        ({"batch_size": True}, "got True"),
        ({"seed": -1}, "seed"),
        ({"world_size": 0}, "world_size"),
        ({"rank": 2, "world_size": 2}, "rank must be an integer from 0 to 1, got 2"),
        ({"window_bytes": 0}, "window_bytes"),
        ({"resident_bytes": -1}, "resident_bytes"),
        ({"batch_size": 64, "drop_last": True}, "leaves no whole batch of 53 pairs"),
    ],
)
def test_arguments_that_do_not_fit(pairs, options, message):
    with pytest.raises(SpecError, match=message):
        storage.PairReader(pairs["zarr"], **({"batch_size": 8} | options))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, "another order of batches: seed 1, here 0"),
        ({"batch_size": 9}, "batch_size 9, here 8"),
        ({"drop_last": True}, "drop_last"),
        ({"content_sha256": "0" * 64}, "content_sha256"),
        ({"window_rows": 3}, "window_rows"),
        ({"shard_size": 3}, "shard_size"),
        ({"step": 7}, "step of the reader's state must be an integer from 0 to 6, got 7"),
        ({"step": None}, "step"),
        ({"epoch": -1}, "epoch"),
        ({"state_version": 2}, "version 2, expected 1"),
    ],
)
def test_states_that_do_not_fit(pairs, change, message):
    reader = storage.PairReader(pairs["zarr"], batch_size=8, **SEVERAL_WINDOWS)
    with pytest.raises(SpecError, match=message):
        reader.load_state_dict(reader.state_dict() | change)
    assert (reader.epoch, reader.step) == (0, 0)


def test_a_reader_that_is_moved_while_it_is_iterated_says_so(pairs, placement):
    reader = storage.PairReader(pairs["zarr"], batch_size=8, **placement)
    batches = iter(reader)
    next(batches)
    reader.load_state_dict(reader.state_dict() | {"step": 4})
    with pytest.raises(SpecError, match="was moved to epoch 0, step 4 while it was iterated at epoch 0, step 1"):
        next(batches)
