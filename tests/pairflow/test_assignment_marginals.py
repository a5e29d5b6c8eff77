"""The coupling by assignment has both marginals exact: rows once a replica, sources i.i.d. uniform, ties fair.

Each χ² test alone gives a false alarm once in 10,000 seeds; the seed is fixed.
"""

import itertools

import numpy as np
from scipy import stats

from pairflow.coupling.assignment import BlockPairs, couple_pairs
from pairflow.spec import CouplingSpec

ALARM = 1e-4


def whole(data: np.ndarray, block_size: int, replicas: int, vocab_size: int) -> BlockPairs:
    spec = CouplingSpec(kind="assignment", block_size=block_size, sources_per_target=replicas, seed=4)
    return couple_pairs(data, 0, len(data) * replicas, vocab_size=vocab_size, spec=spec)


SMALL = np.array(list(itertools.product(range(3), repeat=3)) * 2, np.uint8)[:50]
MANY = whole(SMALL, 10, 600, 3)


def test_every_row_is_used_once_a_replica():
    for replica in range(600):
        rows = MANY.sample_id[MANY.replica == replica]
        assert sorted(rows) == list(range(50))
    np.testing.assert_array_equal(MANY.target, SMALL[MANY.sample_id])


def test_sources_are_uniform():
    """All 27 source points, 30,000 draws: so tokens are uniform at each position and independent between positions."""
    codes = MANY.source @ np.array([9, 3, 1])
    assert stats.chisquare(np.bincount(codes, minlength=27)).pvalue > ALARM


def test_sources_of_a_block_are_independent_of_each_other_and_of_their_place():
    codes = (MANY.source @ np.array([9, 3, 1])).reshape(-1, 10)  # 3,000 blocks of 10
    by_place = np.stack([np.bincount(place, minlength=27) for place in codes.T])
    assert stats.chi2_contingency(by_place).pvalue > ALARM
    for gap in (1, 5):
        both = codes[:, 0] * 27 + codes[:, gap]
        assert stats.chisquare(np.bincount(both, minlength=27 * 27)).pvalue > ALARM


def test_sources_of_two_replicas_and_of_two_blocks_are_independent():
    first = MANY.source[:, 0].reshape(-1, 10)
    for gap in (1, 5):  # the next block, and the same places of the next replica
        both = first[:-gap] * 3 + first[gap:]
        assert stats.chisquare(np.bincount(both.ravel(), minlength=9)).pvalue > ALARM


def test_every_order_of_rows_is_as_likely():
    data = np.zeros((3, 1), np.uint8)
    orders = whole(data, 3, 3000, 2).sample_id.reshape(-1, 3)
    counts = np.unique(orders @ np.array([9, 3, 1]), return_counts=True)[1]
    assert len(counts) == 6
    assert stats.chisquare(counts).pvalue > ALARM


def test_ties_favour_no_row_and_no_place():
    """Equal rows, sources that lie at two distances: who gets the near one is a fair draw."""
    data = np.zeros((4, 1), np.uint8)
    pairs = whole(data, 4, 2000, 2)
    near = pairs.source[:, 0] == 0
    for key in (pairs.sample_id, np.arange(8000) % 4):
        table = np.stack([np.bincount(key[near], minlength=4), np.bincount(key[~near], minlength=4)])
        assert stats.chi2_contingency(table).pvalue > ALARM
