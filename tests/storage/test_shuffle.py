"""The order of the batches: published, in windows of whole shards, and uniform."""

import itertools

import numpy as np

from storage.shuffle import Shuffle


def test_orders_that_were_published():
    """Whoever changes these makes the resumed half of a training run read other rows than its first half."""

    def order(shuffle: Shuffle, epoch: int) -> list[int]:
        return [row for window in shuffle.windows(epoch) for row in shuffle.rows(epoch, window).tolist()]

    assert order(Shuffle(12, 5, 12, seed=0), 0) == GOLDEN["one window"]
    assert order(Shuffle(12, 3, 6, seed=7), 2) == GOLDEN["two windows"]


GOLDEN = {
    "one window": [8, 7, 4, 2, 6, 10, 5, 9, 0, 11, 1, 3],
    "two windows": [10, 11, 6, 7, 9, 8, 2, 4, 3, 0, 5, 1],
}


def test_windows_hold_whole_shards_and_few_rows():
    for num_rows, shard_size, window_rows in itertools.product((1, 10, 53, 100), (1, 7, 60), (1, 14, 40, 1000)):
        windows = Shuffle(num_rows, shard_size, window_rows, seed=3).windows(1)
        assert sorted(shard for window in windows for shard in window.shards) == list(range(-(-num_rows // shard_size)))
        assert [window.start for window in windows] == [0, *[window.stop for window in windows[:-1]]]
        assert windows[-1].stop == num_rows
        assert max(window.stop - window.start for window in windows) <= max(window_rows, shard_size)


def test_one_window_is_a_uniform_shuffle():
    """Chi-square of (row, position) over 4,000 epochs of 6 rows; one seed in 10,000 fails by chance.

    For permutation matrices of size n, (n-1)/n times the statistic has (n-1)² = 25 degrees of freedom.
    """
    shuffle = Shuffle(6, 2, 6, seed=1)
    counts = np.zeros((6, 6))
    for epoch in range(4000):
        counts[shuffle.rows(epoch, shuffle.windows(epoch)[0]), np.arange(6)] += 1
    expected = 4000 / 6
    assert 5 / 6 * ((counts - expected) ** 2 / expected).sum() < 60.1
