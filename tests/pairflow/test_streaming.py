"""Training data that is read while it is used: the batches and the models of data that lie on the device, bit for bit.

The oracle of the order is numpy's own `Generator.permutation`, as releases before 0.2 had it.
"""

import threading
import tracemalloc
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from pairflow import checkpoint, training_data
from pairflow.batches import Batches, data_digest
from pairflow.distillation.dcd import distill
from pairflow.errors import SpecError, StoreError
from pairflow.replicas import Replica
from pairflow.row_source import Held, RowSource, read_all, survey
from pairflow.spec import DistillationSpec, ModelSpec, TrainingSpec
from pairflow.streaming import StreamedBatches
from pairflow.training import fit
from pairflow.training_data import Placing, TrainingData

CPU = torch.device("cpu")
NUM_ROWS, LENGTH, SEED = 53, 6, 7
MODEL = ModelSpec(hidden_size=16, num_layers=1, num_heads=2, cond_size=8, dropout=0.1)
SPEC = TrainingSpec(num_steps=17, batch_size=8, warmup_steps=3, learning_rate=1e-2)


class Shelf:
    """Rows in shards of 7, as a store has them; it counts what is asked of it."""

    shard_size = 7

    def __init__(self, target: np.ndarray, source: np.ndarray | None, broken: int | None = None) -> None:
        self.target, self.source, self.broken = target, source, broken
        self.visits: list[int] = []
        self.taken: list[int] = []

    def shard(self, index: int, columns: tuple[str, ...]) -> dict[str, np.ndarray]:
        rows = slice(index * self.shard_size, (index + 1) * self.shard_size)
        return {name: getattr(self, name)[rows] for name in columns}

    def take(self, index: int, rows: np.ndarray, columns: tuple[str, ...]) -> dict[str, np.ndarray]:
        if index == self.broken:
            raise StoreError("shard is damaged")
        self.visits.append(index)
        self.taken += (index * self.shard_size + rows).tolist()
        return {name: array[rows] for name, array in self.shard(index, columns).items()}


def arrays(dtype: str = "uint8", num_rows: int = NUM_ROWS) -> tuple[np.ndarray, np.ndarray]:
    target, source = (np.random.default_rng(seed).integers(5, size=(num_rows, LENGTH)) for seed in (0, 1))
    return target.astype(dtype), source.astype(dtype)


def expected_rows(num_rows: int, batch_size: int, num_steps: int) -> np.ndarray:
    """Row numbers by step, [num_steps, B]: epochs of `Generator.permutation`, laid end to end."""
    epochs = range(-(-num_steps * batch_size // num_rows))
    order = [np.random.default_rng([SEED, 1, epoch]).permutation(num_rows) for epoch in epochs]
    return np.concatenate(order)[: num_steps * batch_size].reshape(num_steps, batch_size)


def streamed(rows: RowSource, memory_bytes: int, **options: Any) -> StreamedBatches:
    settings: dict[str, Any] = {"batch_size": 8, "seed": SEED, "num_steps": 30, "device": CPU, "replica": Replica()}
    return StreamedBatches(rows, memory_bytes=memory_bytes, **(settings | options))


@pytest.mark.parametrize("memory_bytes", [1, 3000, 10**6])
@pytest.mark.parametrize(("dtype", "batch_size"), [("uint8", 8), ("uint16", 20), ("int64", 60)])
def test_batches_are_those_of_the_device_over_several_epochs(memory_bytes, dtype, batch_size):
    target, source = arrays(dtype)
    options: dict[str, Any] = {"batch_size": batch_size, "seed": SEED, "device": CPU}
    resident = Batches(target, source, **options)
    with streamed(Shelf(target, source), memory_bytes, batch_size=batch_size) as batches:
        for step, rows in enumerate(expected_rows(NUM_ROWS, batch_size, 30)):
            x_1, x_0 = batches.batch(step)
            assert x_1.dtype == torch.int64
            np.testing.assert_array_equal(x_1.numpy(), target[rows])
            assert x_0 is not None
            np.testing.assert_array_equal(x_0.numpy(), source[rows])
            for got, there in zip((x_1, x_0), resident.batch(step), strict=True):
                assert there is not None
                assert torch.equal(got, there)


@pytest.mark.parametrize("memory_bytes", [1, 3000])
def test_any_step_may_be_the_first_and_steps_may_be_asked_for_again(memory_bytes):
    target, _ = arrays()
    expected = expected_rows(NUM_ROWS, 8, 30)
    with streamed(Shelf(target, None), memory_bytes) as batches:
        for step in (11, 12, 13, 14, 29, 0, 1, 7, 7, 6):
            x_1, x_0 = batches.batch(step)
            assert x_0 is None
            np.testing.assert_array_equal(x_1.numpy(), target[expected[step]])


def test_each_replica_reads_its_own_rows_alone():
    target, source = arrays()
    expected = expected_rows(NUM_ROWS, 8, 20)
    shelves = [Shelf(target, source) for _ in range(2)]
    for rank, shelf in enumerate(shelves):
        replica = Replica(rank, 2)
        with streamed(shelf, 2000, num_steps=20, replica=replica) as batches:
            for step, rows in enumerate(expected):
                x_1, x_0 = batches.batch(step)
                mine = rows[4 * rank : 4 * rank + 4]
                assert x_0 is not None
                np.testing.assert_array_equal(replica.share(x_1).numpy(), target[mine])
                np.testing.assert_array_equal(replica.share(x_0).numpy(), source[mine])
                assert x_1.shape == (8, LENGTH)
    for rank, shelf in enumerate(shelves):
        assert sorted(shelf.taken) == sorted(expected[:, 4 * rank : 4 * rank + 4].ravel().tolist())


def test_a_window_visits_each_shard_once_and_nothing_is_read_beyond_the_last_step():
    target, source = arrays()
    shelf = Shelf(target, source)
    with streamed(shelf, 10**6, num_steps=13) as batches:
        for step in range(13):
            batches.batch(step)
    assert shelf.visits == list(range(8))
    assert len(shelf.taken) == 13 * 8


class Endless:
    """A hundred million tokens that are nowhere: each follows from its row."""

    shard_size = 1000

    def __init__(self, num_rows: int) -> None:
        self.target = self.source = np.broadcast_to(np.uint8(0), (num_rows, 512))

    def shard(self, index: int, columns: tuple[str, ...]) -> dict[str, np.ndarray]:
        return self.take(index, np.arange(self.shard_size), columns)

    def take(self, index: int, rows: np.ndarray, columns: tuple[str, ...]) -> dict[str, np.ndarray]:
        tokens = np.repeat(((index * self.shard_size + rows) % 251).astype(np.uint8)[:, None], 512, axis=1)
        return dict.fromkeys(columns, tokens)


def test_memory_is_that_of_two_windows_and_of_the_order():
    num_rows, bound = 100_000, 4_000_000
    tracemalloc.start()
    try:
        with streamed(Endless(num_rows), bound, batch_size=50, num_steps=1000) as batches:
            for step in range(1000):
                x_1, _ = batches.batch(step)
                assert int(x_1[3, 9]) == batches.rows(step)[3] % 251
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < bound + 2 * 8 * num_rows < num_rows * 1024 / 10


def test_what_the_source_raises_reaches_the_training_and_no_thread_is_left():
    target, source = arrays()
    with pytest.raises(StoreError, match="damaged"), streamed(Shelf(target, source, broken=4), 10**6) as batches:
        batches.batch(0)
    with streamed(Shelf(target, source), 1) as batches:
        batches.batch(0)
    assert [each.name for each in threading.enumerate() if each.name.startswith(("rows", "survey"))] == []


def run(folder: Any, rows: Any, source: Any = None, **options: Any) -> dict[str, Any]:
    """Everything that the last checkpoint says, but the seconds."""
    settings: dict[str, Any] = {
        "vocab_size": 5,
        "checkpoint_every": 5,
        "device": "cpu",
        "progress": False,
        "validation": arrays()[0],
    }
    result = fit(MODEL, SPEC, rows, source, checkpoint_dir=folder, **(settings | options))
    return contents(result.checkpoint)


def contents(folder: Any) -> dict[str, Any]:
    state = checkpoint.read_state(folder)
    state.pop("seconds")
    return state | load_file(folder / "tensors.safetensors")


def assert_alike(got: dict[str, Any], expected: dict[str, Any]) -> None:
    assert got.keys() == expected.keys()
    assert [k for k, v in expected.items() if not (torch.equal(v, got[k]) if torch.is_tensor(v) else v == got[k])] == []


@pytest.fixture(scope="module")
def resident(tmp_path_factory):
    return run(tmp_path_factory.mktemp("resident"), *arrays(), placing=Placing("resident"))


@pytest.mark.parametrize("memory_bytes", [1, 1500, None])
@pytest.mark.parametrize("stored", [True, False])
def test_a_streamed_training_leaves_the_same_checkpoint(tmp_path, resident, memory_bytes, stored):
    given = (Shelf(*arrays()),) if stored else arrays()
    assert_alike(run(tmp_path, *given, placing=Placing("streamed", memory_bytes)), resident)


def test_a_training_goes_on_in_the_middle_of_an_epoch_wherever_its_rows_lie(tmp_path, resident):
    def stop(metrics):
        if metrics.step == 13:
            raise KeyboardInterrupt

    places = [Placing("streamed", 1500), Placing("resident"), Placing()]
    for number, (first, second) in enumerate((a, b) for a in places for b in places if a != b):
        folder = tmp_path / str(number)
        with pytest.raises(KeyboardInterrupt):
            run(folder, Shelf(*arrays()), placing=first, on_step=stop, log_every=1)
        assert [step for step, _ in checkpoint.steps(folder)] == [5, 10]
        assert_alike(run(folder, Shelf(*arrays()), placing=second), resident)


@pytest.mark.parametrize("states", ["gaussian", "paired"])
def test_a_streamed_distillation_leaves_the_same_checkpoint(tmp_path, states):
    teacher, (target, source) = tmp_path / "teacher", arrays()
    run(teacher, target, source)
    spec = DistillationSpec(num_steps=12, batch_size=8, update_teacher_every=4, states=states)
    given = (target, source) if states == "paired" else (target, None)
    options: dict[str, Any] = {"vocab_size": 5, "device": "cpu", "progress": False}
    expected = distill(spec, teacher, *given, checkpoint_dir=tmp_path / "resident", **options)
    options["placing"] = Placing("streamed", 1500)
    got = distill(spec, teacher, Shelf(*given), checkpoint_dir=tmp_path / "streamed", **options)
    assert_alike(contents(got.checkpoint), contents(expected.checkpoint))


def test_a_survey_is_the_digest_of_the_arrays_and_checks_every_token():
    for target, source in (arrays(), arrays("uint16"), (arrays()[0], None)):
        assert survey(Shelf(target, source), 5) == data_digest(target, source)
        got = read_all(Shelf(target, source))
        np.testing.assert_array_equal(got[0], target)
        assert (got[1] is None) == (source is None)
    target, source = arrays()
    source[52, 5] = 5
    with pytest.raises(SpecError, match="source: got tokens from 0 to 5, expected 0 to 4"):
        survey(Shelf(target, source), 5)


def placed(placing: Placing, rows: RowSource) -> bool:
    return TrainingData.of(rows, None, 5, placing, CPU, Replica()).resident


def test_by_default_rows_are_resident_where_they_take_half_of_the_free_memory(monkeypatch):
    shelf, tokens = Shelf(*arrays()), 2 * NUM_ROWS * LENGTH
    for free, stored, held in ((4 * tokens, True, True), (4 * tokens - 2, False, True), (2 * tokens - 2, False, False)):
        monkeypatch.setattr(training_data, "free_memory", lambda free=free: free)
        assert placed(Placing(), shelf) == stored  # read into memory, and from there to the device
        assert placed(Placing(), Held(*arrays())) == held
        assert not placed(Placing("streamed"), shelf)


def test_rows_that_must_be_resident_and_do_not_fit_are_refused_before_anything_is_read(monkeypatch, tmp_path):
    monkeypatch.setattr(training_data, "free_memory", lambda: 1000)
    shelf = Shelf(*arrays(), broken=0)
    with pytest.raises(SpecError, match=r"placement: got 'resident' .*, but 53 rows need .* are free; use 'streamed'"):
        run(tmp_path / "new", shelf, placing=Placing("resident"))
    assert not (tmp_path / "new").exists()
    run(tmp_path / "whole", Shelf(*arrays()))  # as is said: with the same result


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (Shelf(*arrays()), {"placing": Placing("streamed", 0)}, "memory_bytes: got 0, expected at least 1"),
        (Shelf(arrays()[0], None), {}, "source: got none, but coupling 'paired' needs each row's source"),
        (Shelf(arrays()[0].astype(float), arrays()[1]), {}, r"target: got float64 of shape \(53, 6\)"),
        (Shelf(arrays()[0], arrays()[1][:, 1:]), {}, r"source: got shape \(53, 5\), expected \(53, 6\)"),
        (Shelf(*arrays()), {"source": arrays()[1]}, "source: got an array, but target is a store's rows"),
        (Shelf(*arrays()), {"vocab_size": 4, "validation": None}, "target: got tokens from 0 to 4, expected 0 to 3"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, rows, options, message):
    with pytest.raises(SpecError, match=message):
        run(tmp_path, rows, **({"placing": Placing("streamed", 1000)} | options))
