"""What matches with sources of the data's marginals count: −log π of the token, in whole units (docs/method.md §7).

A pair's likelihood under the path grows by 1/π(a) for each token a that both share, so a match of a rare token tells
more. Whole numbers keep the assignment exact.
"""

import numpy as np
from numpy.typing import NDArray

from pairflow.coupling.compilation import compiled

UNITS_PER_NAT = 8


def match_weights(marginal: NDArray[np.float64]) -> NDArray[np.int64]:
    """By position and token what a match counts, [D, K]: −log π in units of 1/8 nat, at least 1."""
    return np.maximum(1, np.rint(-UNITS_PER_NAT * np.log(marginal))).astype(np.int64)


def most_gain(weights: NDArray[np.int64]) -> int:
    """What a pair counts at most."""
    return int(weights.max(axis=1).sum())


@compiled
def count_gains(columns, states, weights, gains):
    """gains[b, m] = Σ of weights[b, i] over the positions at which row m of the sources has state b's token.

    Branch-free over words, as `pairflow.coupling.match_counts.count_matches` is over bytes.
    """
    gains[:] = 0
    for i in range(states.shape[1]):
        column = columns[i]
        for b in range(states.shape[0]):
            row, token, weight = gains[b], states[b, i], gains.dtype.type(weights[b, i])
            for m in range(row.shape[0]):
                row[m] += weight if column[m] == token else gains.dtype.type(0)
