"""Match counts: how many tokens each row of the support shares with a state, and passes over them (numba).

A move of position i from a to b is n_m ← n_m + 1[d_m^i = b] − 1[d_m^i = a] for every row m: docs/method.md, Eq. (2.11).

All loops are branch-free over bytes or 16-bit words, so that LLVM makes vector instructions of them.

numba's cache on disk looks at a function's own file only: after a change in here (or in `pairflow.rng`), touch
kernels.py, whose compiled code holds a copy of these functions.
"""

import numpy as np

from pairflow.coupling.compilation import compiled

_BLOCK = 8192  # rows of the support whose counts stay in the first-level cache
_POSITIONS_PER_BYTE = 255
_LANES = 128  # rows counted at once; below 256, so that a byte holds their number
FIND_BLOCK = 2048  # rows whose number at each level is kept, to find a row by its rank; a multiple of _LANES


@compiled
def count_matches(columns, states, counts):
    """counts[b, m] = number of positions at which row m of the support has state b's token.

    Several states at once: each block of a column is then fetched from memory once for all of them. Rows longer than a
    byte can count are counted 255 positions at a time: bytes are twice as many lanes as 16-bit words are.
    """
    num_rows, length = counts.shape[1], states.shape[1]
    in_bytes = np.empty((states.shape[0], _BLOCK), np.uint8)
    for start in range(0, num_rows, _BLOCK):
        stop = min(start + _BLOCK, num_rows)
        counts[:, start:stop] = 0
        for first in range(0, length, _POSITIONS_PER_BYTE):
            in_bytes[:] = 0
            for i in range(first, min(first + _POSITIONS_PER_BYTE, length)):
                column = columns[i, start:stop]
                for b in range(states.shape[0]):
                    block, token = in_bytes[b, : stop - start], states[b, i]
                    for m in range(block.shape[0]):
                        block[m] += column[m] == token
            for b in range(states.shape[0]):
                counts[b, start:stop] += in_bytes[b, : stop - start]


@compiled
def apply_moves(columns, positions, old, new, counts):
    """Brings the match counts up to date after the state's tokens at `positions` went from `old` to `new`."""
    for start in range(0, counts.shape[0], _BLOCK):
        block = counts[start : start + _BLOCK]
        for j in range(positions.shape[0]):
            column = columns[positions[j], start : start + _BLOCK]
            before, after = old[j], new[j]
            for m in range(block.shape[0]):
                block[m] += np.int8(column[m] == after) - np.int8(column[m] == before)


@compiled
def _count_level(counts, level):
    """Number of entries of `counts` that equal `level`."""
    wanted = counts.dtype.type(level)
    whole = counts.shape[0] // _LANES * _LANES
    total = 0
    for start in range(0, whole, _LANES):
        here = np.uint8(0)  # a byte counter, so that the loop is as many lanes wide as the counts are
        for m in range(start, start + _LANES):
            here = np.uint8(here + np.uint8(counts[m] == wanted))
        total += here
    for m in range(whole, counts.shape[0]):
        total += counts[m] == wanted
    return total


@compiled
def count_level_by_block(counts, level, numbers):
    """Fills numbers[k] with those of the k-th FIND_BLOCK entries of `counts` that equal `level`; returns the sum."""
    total = 0
    for k in range(numbers.shape[0]):
        numbers[k] = _count_level(counts[k * FIND_BLOCK : (k + 1) * FIND_BLOCK], level)
        total += numbers[k]
    return total


@compiled
def find_row(counts, level, rank, numbers):
    """The row that comes `rank`-th (from 0) among those at `level`, of which block k has numbers[k]."""
    block = 0
    while rank >= numbers[block]:
        rank -= numbers[block]
        block += 1
    start = block * FIND_BLOCK
    while True:
        here = _count_level(counts[start : start + _LANES], level)
        if rank < here:
            break
        rank -= here
        start += _LANES
    while rank > 0 or counts[start] != level:
        rank -= counts[start] == level
        start += 1
    return start
