"""The cpu engine's inner loops, compiled by numba: what one thread does for a few rows.

Types here are numba's: `columns` [D, M] and `states` [B, D] hold tokens of one unsigned type, `counts` [M] holds match
counts in the smallest unsigned type that fits D.
"""

import numpy as np
from numba import njit

from pairflow.rng import MULTIPLIERS, ROUNDS, WEYL, Purpose

_BLOCK = 8192  # rows of the support whose counts stay in the first-level cache
_LANES = 128  # rows counted at once; below 256, so that a byte holds their number
_FIND_BLOCK = 2048  # rows whose number at each level is kept, to find a row by its rank; a multiple of _LANES
_MAX_LEVELS = 12  # levels counted singly before one full histogram is cheaper
_NEGLIGIBLE = 1e-20  # τ ≠ 1: weights below this fraction of the largest cannot change a float64 sum of 2^32 rows

_PHILOX_0, _PHILOX_1 = np.uint64(MULTIPLIERS[0]), np.uint64(MULTIPLIERS[1])
_WEYL_0, _WEYL_1 = np.uint64(WEYL[0]), np.uint64(WEYL[1])
_LOW, _32, _26, _6, _5 = np.uint64(0xFFFFFFFF), np.uint64(32), np.uint64(26), np.uint64(6), np.uint64(5)
_MOVE, _REPLACE = np.uint64(Purpose.MOVE << 28), np.uint64(Purpose.REPLACE << 28)


@njit(cache=True, nogil=True)
def draw(seed, sample_id, word, position):
    """Two uniform float64 of one Philox4x32-10 call: the scalar twin of `pairflow.rng.draw_pairs`."""
    c0, c1, c2, c3 = np.uint64(position), word, sample_id & _LOW, sample_id >> _32
    k0, k1 = seed & _LOW, seed >> _32
    for _ in range(ROUNDS):
        p0, p1 = c0 * _PHILOX_0, c2 * _PHILOX_1
        c0, c1, c2, c3 = (p1 >> _32) ^ c1 ^ k0, p1 & _LOW, (p0 >> _32) ^ c3 ^ k1, p0 & _LOW
        k0, k1 = (k0 + _WEYL_0) & _LOW, (k1 + _WEYL_1) & _LOW
    first = np.float64(((c0 >> _5) << _26) | (c1 >> _6)) * 2.0**-53
    second = np.float64(((c2 >> _5) << _26) | (c3 >> _6)) * 2.0**-53
    return first, second


@njit(cache=True, nogil=True)
def _count_matches(columns, states, counts):
    """counts[b, m] = number of positions at which row m of the support has state b's token.

    Several states at once: each block of a column is then fetched from memory once for all of them.
    """
    num_rows = counts.shape[1]
    for start in range(0, num_rows, _BLOCK):
        stop = min(start + _BLOCK, num_rows)
        for b in range(states.shape[0]):
            counts[b, start:stop] = 0
        for i in range(states.shape[1]):
            column = columns[i, start:stop]
            for b in range(states.shape[0]):
                block, token = counts[b, start:stop], states[b, i]
                for m in range(block.shape[0]):
                    block[m] += column[m] == token


@njit(cache=True, nogil=True)
def _apply_moves(columns, positions, old, new, counts):
    """Brings the match counts up to date after the state's tokens at `positions` went from `old` to `new`."""
    for start in range(0, counts.shape[0], _BLOCK):
        block = counts[start : start + _BLOCK]
        for j in range(positions.shape[0]):
            column = columns[positions[j], start : start + _BLOCK]
            before, after = old[j], new[j]
            for m in range(block.shape[0]):
                block[m] += np.int8(column[m] == after) - np.int8(column[m] == before)


@njit(cache=True, nogil=True)
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


@njit(cache=True, nogil=True)
def _count_level_by_block(counts, level, numbers):
    """Fills numbers[k] with those of the k-th _FIND_BLOCK entries of `counts` that equal `level`; returns the sum."""
    total = 0
    for k in range(numbers.shape[0]):
        numbers[k] = _count_level(counts[k * _FIND_BLOCK : (k + 1) * _FIND_BLOCK], level)
        total += numbers[k]
    return total


@njit(cache=True, nogil=True)
def _find_row(counts, level, rank, numbers):
    """The row that comes `rank`-th (from 0) among those at `level`, of which block k has numbers[k]."""
    block = 0
    while rank >= numbers[block]:
        rank -= numbers[block]
        block += 1
    start = block * _FIND_BLOCK
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


@njit(cache=True, nogil=True)
def draw_levels(counts, gamma, units, histogram, by_block, cumulative, levels):
    """Draws a level for each of `units` by the levels' total weight hist[l]·γ^l, and fills `histogram` as needed.

    `cumulative[l]` is the weight of the levels l and above, in units of one row at the best level. Level l is drawn
    for u when cumulative[l+1] ≤ u·W < cumulative[l] with W the total. Below the levels counted so far only a bound of
    the rest is known; the loop ends when no draw's level depends on it.

    Returns:
        The best level. `by_block[best − l]` holds the numbers of level l by block, for the first _MAX_LEVELS levels.
    """
    best = np.int64(counts.max())
    remaining = counts.shape[0]
    weight, total = 1.0, 0.0
    level = best
    counted_all = False
    while True:
        if not counted_all:
            if best - level == _MAX_LEVELS:
                histogram[: best + 1] = 0
                for m in range(counts.shape[0]):
                    histogram[counts[m]] += 1
                counted_all = True
            else:
                histogram[level] = _count_level_by_block(counts, level, by_block[best - level])
        remaining -= histogram[level]
        total += histogram[level] * weight
        cumulative[level] = total
        weight /= gamma
        # 1e-9 is far above the rounding of the sums, and costs an extra level once in 10^9 draws.
        limit = total + remaining * weight * (1 + 1e-9)
        undecided = False
        for j in range(units.shape[0]):
            lowest, highest = units[j] * total, units[j] * limit
            chosen = best
            while chosen > level and cumulative[chosen] <= lowest:
                chosen -= 1
            levels[j] = chosen
            if remaining > 0 and cumulative[chosen] <= highest:
                undecided = True
                break
        if not undecided:
            return best
        level -= 1


@njit(cache=True, nogil=True)
def _agreement(columns, state, counts, gamma, rows, weights, agreement):
    """S^i of every position, summed over the rows whose weight is not negligible; agreement is [D] float64."""
    best = counts.max()
    powers = np.empty(best + 1)
    weight = 1.0
    for level in range(best, -1, -1):
        powers[level] = weight if weight > _NEGLIGIBLE else 0.0
        weight /= gamma
    number, total = 0, 0.0
    for m in range(counts.shape[0]):
        weight = powers[counts[m]]
        if weight > 0.0:
            rows[number] = m
            weights[number] = weight
            number += 1
            total += weight
    for i in range(state.shape[0]):
        column = columns[i]
        token = state[i]
        matching = 0.0
        for j in range(number):
            if column[rows[j]] == token:
                matching += weights[j]
        agreement[i] = matching / total


@njit(cache=True, nogil=True)
def walk_rows(states, columns, vocab_size, gammas, ceilings, exponent, seed, sample_ids, counts):
    """Walks each row of `states` [B, D] in place from target to source; `exponent` is 1/τ, `counts` [B, M] scratch."""
    length, num_rows = columns.shape
    exact_marginals = exponent != 1.0
    positions = np.empty(length, np.int64)
    units = np.empty(length)
    levels = np.empty(length, np.int64)
    moved = np.empty(length, np.int64)
    old, new = np.empty(length, states.dtype), np.empty(length, states.dtype)
    histogram, cumulative = np.zeros(length + 1, np.int64), np.zeros(length + 1)
    by_block = np.empty((_MAX_LEVELS, (num_rows + _FIND_BLOCK - 1) // _FIND_BLOCK), np.int64)
    rows = np.empty(num_rows if exact_marginals else 0, np.int64)
    weights = np.empty(num_rows if exact_marginals else 0)
    agreement = np.ones(length)
    for b in range(states.shape[0]):  # t = 1: the posterior holds copies of the target only, so S^i = 1
        for i in range(length):
            move, _ = draw(seed, sample_ids[b], _MOVE, i)
            if move < _move_probability(ceilings[0], vocab_size, exponent):
                states[b, i] = _other_token(states[b, i], vocab_size, draw(seed, sample_ids[b], _REPLACE, i)[0])
    if ceilings.shape[0] > 1:
        _count_matches(columns, states, counts)
    for b in range(states.shape[0]):
        state, sample_id = states[b], sample_ids[b]
        num_moves = 0
        for step in range(1, ceilings.shape[0]):
            ceiling, num_units = ceilings[step], 0
            for i in range(length):
                move, unit = draw(seed, sample_id, _MOVE | np.uint64(step), i)
                if exact_marginals or move < ceiling:
                    positions[num_units] = i
                    units[num_units] = move if exact_marginals else unit
                    num_units += 1
            if num_units == 0:
                continue
            _apply_moves(columns, moved[:num_moves], old, new, counts[b])
            num_moves, best = 0, 0
            if exact_marginals:
                _agreement(columns, state, counts[b], gammas[step], rows, weights, agreement)
            else:
                best = draw_levels(counts[b], gammas[step], units[:num_units], histogram, by_block, cumulative, levels)
            counted = -1  # the level below the singly counted ones whose rows by_block's last line holds
            for j in range(num_units):
                i = positions[j]
                token_unit, row_unit = draw(seed, sample_id, _REPLACE | np.uint64(step), i)
                if exact_marginals:
                    if units[j] >= _move_probability(ceiling * agreement[i], vocab_size, exponent):
                        continue
                else:
                    level = levels[j]
                    line = min(best - level, _MAX_LEVELS - 1)
                    if best - level >= _MAX_LEVELS - 1 and counted != level:
                        _count_level_by_block(counts[b], level, by_block[line])
                        counted = level
                    row = _find_row(counts[b], level, np.int64(row_unit * histogram[level]), by_block[line])
                    if columns[i, row] != state[i]:
                        continue
                moved[num_moves], old[num_moves] = i, state[i]
                state[i] = _other_token(state[i], vocab_size, token_unit)
                new[num_moves] = state[i]
                num_moves += 1


@njit(cache=True, nogil=True)
def _move_probability(rate, vocab_size, exponent):
    """Probability of leaving a token, from c_t·S^i: the odds of one other token against the own to the power 1/τ."""
    if exponent == 1.0:
        return rate
    others = np.float64(vocab_size - np.uint64(1))
    return 1 - 1 / (1 + others * (rate / (1 - rate) / others) ** exponent)


@njit(cache=True, nogil=True)
def _other_token(token, vocab_size, unit):
    """One of the K−1 tokens other than `token`, uniformly."""
    other = np.int64(unit * np.float64(vocab_size - np.uint64(1)))
    return other + (other >= np.int64(token))
