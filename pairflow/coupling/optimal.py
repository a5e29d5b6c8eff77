"""The best assignment: rows and columns of a square matrix of match counts, one to one, with the most matches in total.

A shortest-augmenting-path method (Hungarian; Jonker and Volgenant 1987) that takes all free rows at once. Duals u, v
are kept with u_i + v_j ≥ matches_ij, and equal for matched pairs, which proves the end to be best. In a phase:

- a forest grows from every free row, along the least reduced cost u_i + v_j − matches_ij first, level by level, until a
  level holds free columns; match counts are small integers, so that levels are few and each takes many rows;
- the duals of the forest move by the level, and every tree that has reached a free column is augmented: trees are
  disjoint, so a phase matches many rows where the usual method matches one.

A phase scans a row at most once, in one branch-free pass. So it takes some tens of phases of at most B² steps, and no
memory but the counts; docs/coupling.md compares it with scipy's linear_sum_assignment.
"""

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray


def most_matches(matches: NDArray[np.unsignedinteger], length: int) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """The assignment of most matches; of several as good, which one depends on the order of rows and columns.

    Args:
        matches: [B, B] unsigned integers, at most `length`, C order.
        length: D.

    Returns:
        By row its column, [B] int64, and the duals [2, B] (u of the rows, v of the columns) that prove it best:
        u_i + v_j ≥ matches_ij everywhere, and their sum is the total.
    """
    size = len(matches)
    # A dual or a path is no more than some 2·B·D; 32 bits hold that but for long rows in large blocks.
    dtype = np.int32 if 4 * size * (length + 1) < 2**31 else np.int64
    duals = np.empty((2, size), dtype)
    columns = np.full(size, -1, np.int64)
    _solve(matches, columns, duals[0], duals[1], np.iinfo(dtype).max // 2)
    return columns, duals


@njit(cache=True, nogil=True)
def _solve(matches, columns, u, v, far):
    size = matches.shape[0]
    rows = np.full(size, -1, np.int64)  # by column its row; `columns` is the other way round
    _start(matches, columns, rows, u, v)
    slack, parent = np.empty_like(v), np.empty(size, np.int32)  # by column: distance, and the row it is reached from
    distance, root = np.empty_like(u), np.empty(size, np.int32)  # by row of the forest
    forest, ends = np.empty(size, np.int32), np.empty(size, np.int32)
    reached, augmented = np.empty(size, np.bool_), np.empty(size, np.bool_)
    while True:
        num_rows = 0
        for i in range(size):
            if columns[i] < 0:
                forest[num_rows] = i
                distance[i], root[i], augmented[i] = 0, i, False
                num_rows += 1
        if num_rows == 0:
            return
        slack[:], reached[:] = far, False
        scanned, num_ends, level = 0, 0, u.dtype.type(0)
        while True:
            while scanned < num_rows:
                i = forest[scanned]
                _relax(matches[i], v, distance[i] + u[i], i, slack, parent)
                scanned += 1
            nearest = slack.dtype.type(far)
            for j in range(size):
                nearest = nearest if reached[j] else min(nearest, slack[j])
            if num_ends > 0 and nearest > level:
                break
            level = nearest
            for j in range(size):
                if slack[j] == level and not reached[j]:
                    reached[j] = True
                    i = rows[j]
                    if i < 0:
                        ends[num_ends] = j
                        num_ends += 1
                    else:
                        distance[i], root[i] = level, root[parent[j]]
                        forest[num_rows] = i
                        num_rows += 1
            if scanned == num_rows:  # free columns only
                break
        for k in range(num_rows):
            i = forest[k]
            u[i] -= level - distance[i]
            if columns[i] >= 0:
                v[columns[i]] += level - distance[i]
        for k in range(num_ends):
            j = ends[k]
            if augmented[root[parent[j]]]:
                continue
            augmented[root[parent[j]]] = True
            while j >= 0:
                i = parent[j]
                rows[j] = i
                j, columns[i] = columns[i], j


@njit(cache=True, nogil=True)
def _start(matches, columns, rows, u, v):
    """Duals of the columns' and then the rows' best, and what can be matched at them one row after the other."""
    size = matches.shape[0]
    v[:] = 0
    for i in range(size):
        row = matches[i]
        for j in range(size):
            v[j] = max(v[j], v.dtype.type(row[j]))
    for i in range(size):
        row = matches[i]
        best = u.dtype.type(row[0]) - v[0]
        for j in range(size):
            best = max(best, u.dtype.type(u.dtype.type(row[j]) - v[j]))
        u[i] = best
        for j in range(size):
            if rows[j] < 0 and row[j] - v[j] == best:
                columns[i], rows[j] = j, i
                break


@njit(cache=True, nogil=True)
def _relax(row, v, base, i, slack, parent):
    """Columns that are nearer by row `i` than by those before; no branches, so that LLVM makes vector instructions."""
    for j in range(row.shape[0]):
        reduced = v.dtype.type(base + v[j] - v.dtype.type(row[j]))
        nearer = reduced < slack[j]
        slack[j] = reduced if nearer else slack[j]
        parent[j] = i if nearer else parent[j]
