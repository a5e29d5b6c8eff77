"""A part of the support on the CPU: match counts kept, with the cpu engine's own passes over them (numba)."""

import numpy as np
from numpy.typing import NDArray

from pairflow.coupling.compilation import compiled
from pairflow.coupling.match_counts import FIND_BLOCK, apply_moves, count_matches, find_row
from pairflow.coupling.parts import Array, Draws, Moves
from pairflow.errors import SpecError


class NumbaPart:
    """A `pairflow.coupling.parts.SupportPart` that takes and returns numpy arrays (or tensors on the CPU).

    It uses one thread. A batch of B states takes B·M bytes for the counts (twice that where D > 255).

    Args:
        columns: [D, M] unsigned integers, the part's rows, column after column; of a type that holds K − 1.
    """

    def __init__(self, columns: NDArray[np.unsignedinteger]):
        self._columns = np.ascontiguousarray(columns)
        self.largest_token = int(np.iinfo(columns.dtype).max)
        self._length, self._num_rows = columns.shape
        self._counts = np.empty((0, self._num_rows), np.uint8 if self._length < 256 else np.uint16)
        self._rows = np.empty(0, np.int64)
        self._numbers = np.empty((0, self._length + 1, 0), np.uint16)  # at most FIND_BLOCK

    def start(self, states: Array) -> NDArray[np.int64]:
        """See `SupportPart`."""
        states = self._tokens(states)
        self._counts = np.empty((len(states), self._num_rows), self._counts.dtype)
        count_matches(self._columns, states, self._counts)
        none = np.empty(0, np.int64)
        return self.scan(np.arange(len(states)), Moves(np.zeros(len(states) + 1, np.int64), none, none, none))

    def scan(self, rows: Array, moves: Moves) -> NDArray[np.int64]:
        """See `SupportPart`."""
        self._rows = np.asarray(rows)
        num_blocks = -(-self._num_rows // FIND_BLOCK)
        self._numbers = np.zeros((len(self._rows), self._length + 1, num_blocks), np.uint16)
        old, new = self._tokens(moves.old), self._tokens(moves.new)
        offsets, positions = np.asarray(moves.offsets), np.asarray(moves.positions)
        _scan(self._columns, self._counts, self._rows, offsets, positions, old, new, self._numbers)
        return self._numbers.sum(2, dtype=np.int64)

    def tokens(self, draws: Draws) -> NDArray[np.int64]:
        """See `SupportPart`."""
        rows, levels = np.asarray(draws.rows), np.asarray(draws.levels)
        ranks, positions = np.asarray(draws.ranks), np.asarray(draws.positions)
        tokens = np.empty(len(rows), np.int64)
        _tokens(self._columns, self._counts, self._rows, self._numbers, rows, levels, ranks, positions, tokens)
        return tokens

    def agreement(self, states: Array, powers: Array) -> NDArray[np.float64]:
        """See `SupportPart`."""
        states = self._tokens(states)
        sums = np.zeros(states.shape)
        _agreement(self._columns, self._counts, self._rows, states, np.asarray(powers), sums)
        return sums

    def _tokens(self, tokens: Array) -> NDArray[np.unsignedinteger]:
        """int64 tokens as the columns hold them.

        Raises:
            SpecError: one is too large for that, and would count as a match with another.
        """
        tokens = np.asarray(tokens)
        if tokens.size and (largest := int(tokens.max())) > self.largest_token:
            raise SpecError(
                f"support: got a part of {self._columns.dtype}, which cannot be compared with token {largest}; make it "
                "of a type that holds every token of the vocabulary"
            )
        return tokens.astype(self._columns.dtype)


@compiled
def _scan(columns, counts, rows, offsets, positions, old, new, numbers):
    """numbers[r, l, k] = rows of the k-th FIND_BLOCK rows that are at level l of state rows[r], after its moves."""
    # Neighbours are often at one level: in four histograms by turns, an addition does not wait for the one before.
    turns = np.empty((4, numbers.shape[1]), np.int32)
    for r in range(rows.shape[0]):
        row_counts = counts[rows[r]]
        some = slice(offsets[r], offsets[r + 1])
        apply_moves(columns, positions[some], old[some], new[some], row_counts)
        for k in range(numbers.shape[2]):
            block = row_counts[k * FIND_BLOCK : (k + 1) * FIND_BLOCK]
            whole = block.shape[0] // 4 * 4
            turns[:] = 0
            for m in range(0, whole, 4):
                turns[0, block[m]] += 1
                turns[1, block[m + 1]] += 1
                turns[2, block[m + 2]] += 1
                turns[3, block[m + 3]] += 1
            for m in range(whole, block.shape[0]):
                turns[0, block[m]] += 1
            for level in range(turns.shape[1]):
                numbers[r, level, k] = turns[0, level] + turns[1, level] + turns[2, level] + turns[3, level]


@compiled
def _tokens(columns, counts, scanned, numbers, rows, levels, ranks, positions, tokens):
    for n in range(rows.shape[0]):
        r, level = rows[n], levels[n]
        tokens[n] = columns[positions[n], find_row(counts[scanned[r]], level, ranks[n], numbers[r, level])]


@compiled
def _agreement(columns, counts, scanned, states, powers, sums):
    chosen = np.empty(counts.shape[1], np.int64)
    weights = np.empty(counts.shape[1])
    for r in range(scanned.shape[0]):
        row_counts = counts[scanned[r]]
        number = 0
        for m in range(row_counts.shape[0]):
            weight = powers[r, row_counts[m]]
            if weight > 0.0:
                chosen[number] = m
                weights[number] = weight
                number += 1
        for i in range(columns.shape[0]):
            column, token = columns[i], states[r, i]
            for j in range(number):
                if column[chosen[j]] == token:
                    sums[r, i] += weights[j]
