"""Passes over match counts in plain torch: any device, any length; what `triton_kernels` is checked against.

Shapes and types: `columns` [D, M] tokens and `counts` [B, M] match counts in the integers that `tensor_part` chooses,
each line a whole number of blocks of ROWS_PER_BLOCK elements behind the one before, so that vector instructions may
read what lies behind row M; `numbers` [R, chunks, D+1] int32, how many of each chunk's rows are at each level.
"""

import torch
from torch import Tensor

from pairflow.coupling.parts import Moves

ROWS_PER_BLOCK = 1024  # counts that a program of `triton_kernels` has in its registers at once
_ELEMENTS_AT_ONCE = 1 << 23  # of one intermediate tensor, so some ten times as many bytes


def count_matches(columns: Tensor, states: Tensor, counts: Tensor) -> None:
    """counts[b, m] = number of positions at which row m of the support has state b's token; states [B, D]."""
    rows_at_once = max(1, _ELEMENTS_AT_ONCE // columns.shape[1])
    for start in range(0, len(states), rows_at_once):
        block = counts[start : start + rows_at_once].zero_()
        for i, column in enumerate(columns):
            block += states[start : start + rows_at_once, i, None] == column


def scan(columns: Tensor, counts: Tensor, rows: Tensor, moves: Moves, numbers: Tensor, chunk_size: int) -> None:
    """Applies the moves of `rows` [R] to their counts, Eq. (2.11), and fills `numbers`, `chunk_size` rows a chunk."""
    num_levels = numbers.shape[2]
    moved = torch.repeat_interleave(rows, moves.offsets.diff())
    moves_at_once = max(1, _ELEMENTS_AT_ONCE // chunk_size)
    for chunk in range(numbers.shape[1]):
        part = slice(chunk * chunk_size, min((chunk + 1) * chunk_size, columns.shape[1]))
        for start in range(0, len(moved), moves_at_once):
            some = slice(start, start + moves_at_once)
            tokens = columns[moves.positions[some], part]
            change = (tokens == moves.new[some, None]).to(counts.dtype)
            change -= (tokens == moves.old[some, None]).to(counts.dtype)  # unsigned: −1 wraps, and adds as −1
            counts[:, part].index_add_(0, moved[some], change)
        for start in range(0, len(rows), moves_at_once):
            some = slice(start, start + moves_at_once)
            levels = counts[rows[some], part].to(torch.int64)
            levels += torch.arange(len(levels), device=levels.device)[:, None] * num_levels
            counted = torch.bincount(levels.flatten(), minlength=len(levels) * num_levels)
            numbers[some, chunk] = counted.view(-1, num_levels).to(numbers.dtype)


def find(counts: Tensor, rows: Tensor, chunks: Tensor, levels: Tensor, ranks: Tensor, chunk_size: int) -> Tensor:
    """The support's row that comes ranks[n]-th among those at levels[n] in chunks[n], for counts[rows[n]]: [N]."""
    found = torch.empty_like(rows)
    offsets = torch.arange(min(chunk_size, counts.shape[1]), device=counts.device)
    draws_at_once = max(1, _ELEMENTS_AT_ONCE // len(offsets))
    for start in range(0, len(rows), draws_at_once):
        some = slice(start, start + draws_at_once)
        at = chunks[some, None] * chunk_size + offsets
        inside = at < counts.shape[1]
        here = counts[rows[some, None], at.clamp(max=counts.shape[1] - 1)]
        is_hit = (here.to(torch.int64) == levels[some, None]) & inside
        # The first place where the running number of hits has passed the rank.
        behind = is_hit.cumsum(1, dtype=torch.int32) <= ranks[some, None]
        found[some] = chunks[some] * chunk_size + behind.sum(1)
    return found


def agreement(columns: Tensor, counts: Tensor, rows: Tensor, states: Tensor, powers: Tensor, chunk_size: int) -> Tensor:
    """Σ_m powers[r, counts[rows[r], m]]·1[columns[i, m] = states[r, i]] in float64, [R, D]; states [R, D]."""
    sums = torch.zeros(states.shape, dtype=torch.float64, device=states.device)
    rows_at_once = max(1, _ELEMENTS_AT_ONCE // chunk_size)
    for start in range(0, len(rows), rows_at_once):
        some = slice(start, start + rows_at_once)
        for begin in range(0, columns.shape[1], chunk_size):
            part = slice(begin, begin + chunk_size)
            weights = powers[some].gather(1, counts[rows[some], part].to(torch.int64))
            for i, column in enumerate(columns[:, part]):
                sums[some, i] += torch.where(column == states[some, i, None], weights, 0.0).sum(1)
    return sums
