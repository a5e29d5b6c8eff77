"""The coupling by assignment: the least distance, and the same bytes however it is cut."""

import hashlib
import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from pairflow.coupling import assignment, couple, engine_version
from pairflow.coupling.assignment import couple_pairs
from pairflow.coupling.blocks import BlockPlan
from pairflow.coupling.optimal import most_matches
from pairflow.spec import CouplingSpec


def spec_of(block_size: int, replicas: int = 1, seed: int = 4) -> CouplingSpec:
    return CouplingSpec(kind="assignment", block_size=block_size, sources_per_target=replicas, seed=seed)


def formula_rows(num_rows: int, length: int, vocab_size: int) -> np.ndarray:
    row, position = np.ogrid[:num_rows, :length]
    return ((row * row + 3 * row * position + position) % vocab_size).astype(np.uint16)


DATA = formula_rows(90, 14, 43)


def whole(data: np.ndarray, spec: CouplingSpec, vocab_size: int = 43) -> assignment.BlockPairs:
    return couple_pairs(data, 0, len(data) * spec.sources_per_target, vocab_size=vocab_size, spec=spec)


# The least distance


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7])
def test_no_permutation_has_more_matches(size):
    random = np.random.default_rng(size)
    for levels in (1, 2, 3, 9) * 5:
        matches = random.integers(0, levels, (size, size)).astype(np.uint8)
        columns, _ = most_matches(matches, levels)
        best = max(matches[range(size), list(each)].sum() for each in itertools.permutations(range(size)))
        assert sorted(columns) == list(range(size))
        assert matches[range(size), columns].sum() == best


def test_as_good_as_scipy_on_1200_blocks_with_ties():
    """Also with columns that are all alike, rows that are all alike, and 64-bit duals; duals prove each to be best."""
    random = np.random.default_rng(0)
    for number in range(1200):
        size, length = int(random.integers(1, 60)), int(random.integers(1, 12))
        matches: Any = random.integers(0, length + 1, (size, size)).astype(np.uint8 if number % 2 else np.uint16)
        if number % 4 == 0:
            matches = matches[random.integers(0, max(1, size // 6), size)]
        if number % 4 == 1:
            matches = np.ascontiguousarray(matches[:, random.integers(0, max(1, size // 6), size)])
        columns, (u, v) = most_matches(matches, 2**27 if number % 8 == 7 else length)
        total = matches[np.arange(size), columns].sum(dtype=np.int64)
        assert len(np.unique(columns)) == size
        assert total == matches[linear_sum_assignment(matches, maximize=True)].sum(dtype=np.int64)
        assert total == u.sum(dtype=np.int64) + v.sum(dtype=np.int64)
        assert (u[:, None] + v >= matches).all()


@pytest.mark.parametrize(("vocab_size", "length", "seed"), [(43, 32, 0), (2, 64, 1), (2, 300, 2)])
def test_a_block_of_all_rows_is_as_near_as_scipy_brings_it(vocab_size, length, seed):
    data = np.random.default_rng(seed).integers(0, vocab_size, (400, length))
    pairs = whole(data, spec_of(400), vocab_size)
    distances = (pairs.target[:, None] != pairs.source).sum(2)
    assert np.trace(distances) == distances[linear_sum_assignment(distances)].sum()


def test_larger_blocks_are_straighter():
    data = np.random.default_rng(0).integers(0, 8, (512, 12))
    means = []
    for block_size in (1, 8, 64, 512):
        pairs = whole(data, spec_of(block_size), 8)
        means.append(float((pairs.target != pairs.source).sum(1).mean()))
    assert means[0] == pytest.approx(12 * 7 / 8, abs=4 * np.sqrt(12 * 7 / 64 / 512))  # chance
    assert np.diff(means).max() < -0.5


# The same bytes


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_however_it_is_cut(data):
    vocab_size = data.draw(st.sampled_from([2, 3, 257, 70_000]))
    num_rows, length = data.draw(st.integers(1, 40)), data.draw(st.sampled_from([1, 2, 9, 256]))
    spec = spec_of(data.draw(st.integers(1, 50)), data.draw(st.integers(1, 4)), data.draw(st.integers(0, 2**63 - 1)))
    rows = np.random.default_rng(num_rows).integers(0, vocab_size, (num_rows, length))
    pairs = whole(rows, spec, vocab_size)
    assert pairs.source.min() >= 0
    assert pairs.source.max() < vocab_size
    keys = pairs.replica * num_rows + pairs.sample_id
    assert sorted(keys) == list(range(num_rows * spec.sources_per_target))
    start = data.draw(st.integers(0, len(keys) - 1))
    stop = data.draw(st.integers(start + 1, len(keys)))
    part = couple_pairs(rows, start, stop, vocab_size=vocab_size, spec=spec, num_threads=3)
    for name in ("source", "target", "sample_id", "replica"):
        np.testing.assert_array_equal(getattr(part, name), getattr(pairs, name)[start:stop])
    some = pairs.sample_id[start:stop][::-1]
    found = couple(
        rows[some], rows, vocab_size=vocab_size, spec=spec, sample_ids=some, replicas=pairs.replica[start:stop][::-1]
    )
    np.testing.assert_array_equal(found, pairs.source[start:stop][::-1])


def test_a_replica_does_not_depend_on_how_many_there_are():
    few, many = whole(DATA, spec_of(20, 2)), whole(DATA, spec_of(20, 5))
    for replica in range(2):
        for name in ("source", "sample_id"):
            mine = getattr(few, name)[few.replica == replica]
            np.testing.assert_array_equal(mine, getattr(many, name)[many.replica == replica])


@given(st.integers(1, 300), st.integers(1, 320), st.integers(1, 4))
@settings(deadline=None)
def test_blocks_cover_all_pairs_once_in_order(num_rows, block_size, replicas):
    plan = BlockPlan.of(num_rows, spec_of(block_size, replicas))
    blocks = [plan.block(number) for number in range(plan.num_blocks)]
    pairs = [b.first_pair + offset for b in blocks for offset in range(b.stop - b.start)]
    assert pairs == list(range(plan.num_pairs))
    for replica in range(replicas):
        places = [place for b in blocks if b.replica == replica for place in range(b.start, b.stop)]
        assert sorted(places) == list(range(num_rows))
    assert max(b.stop - b.start for b in blocks) == plan.size <= block_size
    assert len(blocks) == replicas * -(-num_rows // block_size)  # no more than need be
    for b in blocks:
        assert plan.blocks(b.first_pair, b.first_pair + 1) == [b]
    assert plan.blocks(0, plan.num_pairs) == blocks


def test_blocks_are_as_large_as_one_another():
    plan = BlockPlan.of(126_100, spec_of(4096))
    sizes = {b.stop - b.start for b in plan.blocks(0, plan.num_pairs)}
    assert sizes == {4068, 4060}


def test_more_rows_a_block_than_there_are_means_all():
    np.testing.assert_array_equal(whole(DATA, spec_of(2**17)).source, whole(DATA, spec_of(90)).source)


def test_threads_dtype_and_memory_order_do_not_show():
    pairs = couple(DATA, vocab_size=43, spec=spec_of(20), num_threads=1)
    assert pairs.dtype == DATA.dtype
    np.testing.assert_array_equal(couple(DATA, vocab_size=43, spec=spec_of(20), num_threads=5), pairs)
    other = couple(np.asfortranarray(DATA.astype(np.int64)), vocab_size=43, spec=spec_of(20))
    assert other.dtype == np.int64
    np.testing.assert_array_equal(other, pairs)


def test_another_seed_gives_other_blocks_and_sources():
    mine, other = whole(DATA, spec_of(20)), whole(DATA, spec_of(20, seed=5))
    assert (mine.sample_id != other.sample_id).any()
    assert (np.sort(mine.source, 0) != np.sort(other.source, 0)).any()


@pytest.mark.parametrize(
    ("vocab_size", "length", "block_size", "digest"),
    [
        (43, 14, 4096, "18a1903a74e703aa2932cb61e34e9cdb28914c27f5a0d79762434a0afe303725"),
        (43, 14, 20, "c3d9813600235b7c76a583b7f680470aebfe54b91be9c7596aeb265a8b1c2cc8"),
        (2, 300, 40, "6ae0afb97ad20daa21ea8f30a22661f10071f1c681faf3b8f1f45d4ea0a21c7b"),
        (300, 9, 40, "715c191e006b5954318cc65bbc40d42ee1a03dcdc40aff7f900fee5d6dc298c5"),
    ],
)
def test_golden_digests_of_assignment_1(vocab_size, length, block_size, digest):
    """Recorded with engine assignment/1 on x86-64. Different bytes need a new version, and new digests here."""
    assert engine_version("assignment") == "assignment/1"
    data = formula_rows(90, length, vocab_size)
    pairs = whole(data, CouplingSpec(kind="assignment", block_size=block_size, sources_per_target=2), vocab_size)
    content = pairs.source.astype("<u2").tobytes() + pairs.sample_id.astype("<i8").tobytes()
    assert hashlib.sha256(content).hexdigest() == digest
