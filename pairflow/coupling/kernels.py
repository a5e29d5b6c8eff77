"""The cpu engine's inner loops, compiled by numba: what one thread does for a few rows.

The equations are those of docs/method.md §2: `draw_levels` is Eq. (2.10), `_agreement` Eq. (2.3), `_move_probability`
Eq. (2.8), and `walk_rows` puts them together by Eq. (2.9), with the bound of Eq. (2.12) and the counts of Eq. (2.11).

Types here are numba's: `columns` [D, M] and `states` [B, D] hold tokens of one unsigned type, `counts` [M] holds match
counts in the smallest unsigned type that fits D.
"""

import numpy as np

from pairflow.coupling.compilation import compiled
from pairflow.coupling.match_counts import FIND_BLOCK, apply_moves, count_level_by_block, count_matches, find_row
from pairflow.rng import MULTIPLIERS, ROUNDS, WEYL, Purpose

_MAX_LEVELS = 12  # levels counted singly before one full histogram is cheaper
_ROWS_PER_BYTE = 255  # rows whose matches at one position a byte can count
_NEGLIGIBLE = 1e-20  # τ ≠ 1: weights below this fraction of the largest cannot change a float64 sum of 2^32 rows

_PHILOX_0, _PHILOX_1 = np.uint64(MULTIPLIERS[0]), np.uint64(MULTIPLIERS[1])
_WEYL_0, _WEYL_1 = np.uint64(WEYL[0]), np.uint64(WEYL[1])
_LOW, _32, _26, _6, _5 = np.uint64(0xFFFFFFFF), np.uint64(32), np.uint64(26), np.uint64(6), np.uint64(5)
_MOVE, _REPLACE = np.uint64(Purpose.MOVE << 28), np.uint64(Purpose.REPLACE << 28)


@compiled
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


@compiled
def draw_levels(counts, own_level, gamma, units, histogram, by_block, cumulative, levels):
    """Draws a level for each of `units` by P(l) ∝ hist[l]·γ^l, Eq. (2.10), and fills `histogram` as needed.

    `cumulative[l]` is the weight of the levels l and above, in units of one row at the best level. Level l is drawn
    for u when cumulative[l+1] ≤ u·W < cumulative[l] with W the total. Below the levels counted so far only a bound of
    the rest is known; the loop ends when no draw's level depends on it. `own_level` is that of the row being walked
    where the support does not hold it, or else −1.

    Returns:
        The best level. `by_block[best − l]` holds the numbers of level l by block, for the first _MAX_LEVELS levels.
    """
    best = max(np.int64(counts.max()), own_level)
    remaining = counts.shape[0] + (own_level >= 0)
    weight, total = 1.0, 0.0
    level = best
    counted_all = False
    while True:
        if not counted_all:
            if best - level == _MAX_LEVELS:
                histogram[: best + 1] = 0
                for m in range(counts.shape[0]):
                    histogram[counts[m]] += 1
                if own_level >= 0:
                    histogram[own_level] += 1
                counted_all = True
            else:
                number = count_level_by_block(counts, level, by_block[best - level])
                histogram[level] = number + (level == own_level)
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


@compiled
def _agreement(points, state, target, counts, own_level, gamma, negligible, by_level, used, agreement):
    """S^i of every position, Eq. (2.3), summed over the rows whose weight is not negligible; agreement is [D] float64.

    Rows of one level weigh the same. So a few rows at a time their matches are counted by level and position, in bytes,
    and only the numbers are weighted: one vector instruction does 32 positions, where one on weights does four.
    """
    best = max(np.int64(counts.max()), own_level)
    powers = np.empty(best + 1)
    weight = 1.0
    for level in range(best, -1, -1):
        powers[level] = weight if weight > negligible else 0.0
        weight /= gamma
    total = powers[own_level] if own_level >= 0 else 0.0
    for i in range(state.shape[0]):
        agreement[i] = total if target[i] == state[i] else 0.0
    for start in range(0, counts.shape[0], _ROWS_PER_BYTE):
        num_used = 0
        for m in range(start, min(start + _ROWS_PER_BYTE, counts.shape[0])):
            level = np.int64(counts[m])
            if powers[level] == 0.0:
                continue
            total += powers[level]
            line, point = by_level[level], points[m]
            if line[-1] == 0:
                line[-1] = 1
                used[num_used] = level
                num_used += 1
            for i in range(state.shape[0]):
                line[i] += point[i] == state[i]
        for j in range(num_used):
            weight, line = powers[used[j]], by_level[used[j]]
            for i in range(state.shape[0]):
                agreement[i] += weight * line[i]
            line[:] = 0
    for i in range(state.shape[0]):
        agreement[i] /= total


@compiled
def _best_of_others(counts, length):
    """Most matches that a row has which is no copy of the target (which matches everywhere); −1 if all are copies."""
    best = np.int64(-1)
    for m in range(counts.shape[0]):
        if counts[m] != length:
            best = max(best, np.int64(counts[m]))
    return best


@compiled
def walk_rows(
    states,
    columns,
    points,
    vocab_size,
    gammas,
    ceilings,
    exponent,
    tolerance,
    seed,
    sample_ids,
    replicas,
    counts,
    num_scans,
):
    """Walks each row of `states` [B, D] in place from target to source.

    Args:
        points: the support once more, row after row [M, D], for exponents other than 1; else not looked at.
        exponent: 1/τ.
        tolerance: a step needs no scan while all rows but copies of the target weigh less than this, relatively.
        replicas: [B], the replica's number at its place in the draws' second word.
        counts: [B, M] scratch.
        num_scans: [B], set to the number of steps that scanned the support.
    """
    length, num_rows = columns.shape
    exact_marginals = exponent != 1.0
    targets = states.copy()
    positions = np.empty(length, np.int64)
    units = np.empty(length)
    levels = np.empty(length, np.int64)
    # Moves that the counts do not know of yet: those of one scanned step, and of positions that left their own token.
    moved = np.empty(2 * length, np.int64)
    old, new = np.empty(2 * length, states.dtype), np.empty(2 * length, states.dtype)
    histogram, cumulative = np.zeros(length + 1, np.int64), np.zeros(length + 1)
    by_block = np.empty((_MAX_LEVELS, (num_rows + FIND_BLOCK - 1) // FIND_BLOCK), np.int64)
    # A last byte in each line says whether the line is in use.
    by_level = np.zeros((length + 1 if exact_marginals else 0, length + 1), np.uint8)
    used = np.empty(_ROWS_PER_BYTE, np.int64)
    agreement = np.ones(length)
    # τ > 1 raises small agreements to a power below 1, so that smaller weights show.
    negligible = _NEGLIGIBLE ** max(1.0, 1 / exponent)
    if ceilings.shape[0] > 1:
        count_matches(columns, targets, counts)
    for b in range(states.shape[0]):
        state, target, row_counts = states[b], targets[b], counts[b]
        sample_id = sample_ids[b]
        nearest, num_own, in_support = np.int64(-1), np.int64(length), True
        if ceilings.shape[0] > 1:
            nearest = _best_of_others(row_counts, length)
            in_support = row_counts.max() == length
        num_moves = 0
        num_scans[b] = 0
        for step in range(ceilings.shape[0]):
            ceiling, word = ceilings[step], replicas[b] | np.uint64(step)
            num_units = 0
            for i in range(length):
                move, unit = draw(seed, sample_id, _MOVE | word, i)
                if exact_marginals or move < ceiling:
                    positions[num_units] = i
                    units[num_units] = move if exact_marginals else unit
                    num_units += 1
            if num_units == 0:
                continue
            # At t = 1 γ is infinite and only copies of the target weigh anything. Later a row at distance d from the
            # target is at least d − k from the state, where k = length − num_own, against k of its own, Eq. (2.12).
            alone = step == 0 or nearest < 0
            if not alone and tolerance > 0.0:
                exponent_of_gamma = 2 * (length - num_own) - (length - nearest)
                alone = num_rows * gammas[step] ** exponent_of_gamma < tolerance
            own_level = -1 if in_support else num_own
            best = np.int64(0)
            if alone:
                for i in range(length):
                    agreement[i] = 1.0 if state[i] == target[i] else 0.0
            else:
                num_scans[b] += 1
                apply_moves(columns, moved[:num_moves], old, new, row_counts)
                num_moves = 0
                gamma = gammas[step]
                if exact_marginals:
                    _agreement(
                        points, state, target, row_counts, own_level, gamma, negligible, by_level, used, agreement
                    )
                else:
                    best = draw_levels(
                        row_counts, own_level, gamma, units[:num_units], histogram, by_block, cumulative, levels
                    )
            counted = np.int64(-1)  # the level whose numbers by_block's last line holds, if it was recounted
            for j in range(num_units):
                i = positions[j]
                token_unit, row_unit = draw(seed, sample_id, _REPLACE | word, i)
                if exact_marginals:
                    if units[j] >= _move_probability(ceiling * agreement[i], vocab_size, exponent):
                        continue
                elif alone:
                    if state[i] != target[i]:
                        continue
                else:
                    level = levels[j]
                    rank = np.int64(row_unit * histogram[level])
                    if level == own_level and rank == histogram[level] - 1:
                        drawn = target[i]
                    else:
                        line = min(best - level, _MAX_LEVELS - 1)
                        if best - level >= _MAX_LEVELS - 1 and counted != level:
                            count_level_by_block(row_counts, level, by_block[line])
                            counted = level
                        drawn = columns[i, find_row(row_counts, level, rank, by_block[line])]
                    if drawn != state[i]:
                        continue
                moved[num_moves], old[num_moves] = i, state[i]
                num_own -= state[i] == target[i]
                state[i] = _other_token(state[i], vocab_size, token_unit)
                num_own += state[i] == target[i]
                new[num_moves] = state[i]
                num_moves += 1


@compiled
def _move_probability(rate, vocab_size, exponent):
    """Probability of leaving a token from c_t·S^i, Eq. (2.8): the odds of another token against the own, to 1/τ."""
    if exponent == 1.0:
        return rate
    others = np.float64(vocab_size - np.uint64(1))
    return 1 - 1 / (1 + others * (rate / (1 - rate) / others) ** exponent)


@compiled
def _other_token(token, vocab_size, unit):
    """One of the K−1 tokens other than `token`, uniformly."""
    other = np.int64(unit * np.float64(vocab_size - np.uint64(1)))
    return other + (other >= np.int64(token))
