"""The data's marginals π_i(a): how often a token stands at a position (docs/method.md §7, Eq. (7.5)).

What they are made of is counted exactly, so they are the same for any order of the rows, and for each row R times.
May import `errors` of the library.
"""

import numpy as np
from numpy.typing import NDArray

from pairflow.errors import SpecError

UNIFORM_SHARE = 0.02
"""Of the uniform distribution in the marginals, so that no token is impossible anywhere."""
_MOST_ENTRIES = 2**27  # D·K: 1 GiB of them
_TOKENS_AT_ONCE = 2**22  # 32 MiB of int64, whatever D is


class MarginalCounts:
    """Counts tokens by position, block after block of rows."""

    def __init__(self, length: int, vocab_size: int) -> None:
        """Raises SpecError where D·K is beyond what a table of it may take."""
        if length * vocab_size > _MOST_ENTRIES:
            raise SpecError(
                f"marginals: got {length:,} positions of {vocab_size:,} tokens, expected at most {_MOST_ENTRIES:,} of "
                "both together; use uniform noise"
            )
        self._length, self._vocab_size = length, vocab_size
        self._counts = np.zeros(length * vocab_size, np.int64)
        self._num_rows = 0

    def add(self, rows: NDArray[np.integer]) -> None:
        """Counts rows [n, D] of tokens below K."""
        places = np.arange(self._length) * self._vocab_size
        rows_at_once = max(1, _TOKENS_AT_ONCE // self._length)
        for start in range(0, len(rows), rows_at_once):
            block = rows[start : start + rows_at_once].astype(np.int64)  # uint64 and int64 together would be floats
            block += places
            self._counts += np.bincount(block.ravel(), minlength=len(self._counts))
            self._num_rows += len(block)

    def marginals(self) -> NDArray[np.float64]:
        """π [D, K], each row summing to 1."""
        shares = self._counts.reshape(self._length, self._vocab_size) / self._num_rows
        return (1 - UNIFORM_SHARE) * shares + UNIFORM_SHARE / self._vocab_size


def marginals(tokens: NDArray[np.integer], vocab_size: int) -> NDArray[np.float64]:
    """π [D, K] of rows [M, D] of tokens 0 … K−1.

    Raises:
        SpecError: D·K is beyond what a table of it may take.
    """
    counts = MarginalCounts(tokens.shape[1], vocab_size)
    counts.add(tokens)
    return counts.marginals()


def cumulated(marginal: NDArray[np.float64]) -> NDArray[np.float64]:
    """By position and token the probability of that token or one before it, [D, K]; the last is 1."""
    sums = marginal.cumsum(-1)
    sums[:, -1] = 1
    return sums


def tokens_of(units: NDArray[np.float64], sums: NDArray[np.float64]) -> NDArray[np.int64]:
    """Draws from marginals: the first token whose `cumulated` exceeds the unit draw, [n, D] from units in [0, 1)."""
    tokens = np.empty(units.shape, np.int64)
    for i, column in enumerate(sums):
        tokens[:, i] = np.searchsorted(column, units[:, i], side="right")
    return tokens
