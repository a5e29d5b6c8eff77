"""Passes over match counts as Triton kernels, by hand; same functions and results as `torch_kernels`.

What they cost on QM9 (M = B = 126,100, D = 32, K = 43, T = 20). Nobody has run them on a GPU yet: the instructions are
counted in what Triton compiles for sm_90, which needs none; an H200 can issue 132·128 lanes at some 1.8 GHz, so
3·10^13 a second, and half of that where all are integer operations.

- First counts: B·M·D = 5·10^11 comparisons of 6 instructions, 3·10^12 in all: 0.1 to 0.2 s. A program holds 16 states
  against 512 rows, so a column is read B/16 times, from the L2 cache, where all 4 MB of columns stay.
- A step reads and writes each count once, 2·B·M = 32 GB, in 20 steps 0.6 TB: 0.13 s at 4.8 TB/s. It costs 50
  instructions a count for the histogram (`tl.histogram`: votes of a warp, bit by bit, without atomics) and 10 more for
  each of the 1.6 moves a row and step: 3.2·10^11 counts in all steps, 2·10^13 instructions, 0.7 to 1.4 s. This is the
  largest part by far.
- Recounting at each step instead would cost D·6 = 192 instructions a count in place of 16, some 3 s more, and would
  save B·M = 16 GB of memory, which smaller batches save as well.
- A draw reads one chunk of 4,096 counts: 120 draws a row, 0.06 TB in all.

Every number is written by one program, so results do not depend on the order in which programs run.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from pairflow.coupling.parts import Moves
from pairflow.coupling.torch_kernels import ROWS_PER_BLOCK

MAX_LENGTH = 4094  # a histogram of 4,096 bins, one of them for what lies beyond the last row

_STATES, _ROWS = 16, 512  # counted by one program


@triton.jit
def _count_matches(columns, states, counts, num_states, stride, length, STATES: tl.constexpr, ROWS: tl.constexpr):
    b = tl.program_id(1) * STATES + tl.arange(0, STATES)
    m = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    in_batch = b < num_states
    matches = tl.zeros((STATES, ROWS), tl.int32)
    for i in range(length):
        token = tl.load(states + b.to(tl.int64) * length + i, in_batch, other=0).to(tl.int32)
        column = tl.load(columns + tl.cast(i, tl.int64) * stride + m).to(tl.int32)
        matches += (token[:, None] == column[None, :]).to(tl.int32)
    at = b[:, None].to(tl.int64) * stride + m[None, :]
    tl.store(counts + at, matches.to(counts.dtype.element_ty), in_batch[:, None])


@triton.jit
def _scan(
    columns,
    counts,
    rows,
    offsets,
    positions,
    old,
    new,
    numbers,
    num_rows,
    stride,
    num_chunks,
    num_levels,
    CHUNK: tl.constexpr,
    BLOCK: tl.constexpr,
    BINS: tl.constexpr,
):
    r, chunk = tl.program_id(0), tl.program_id(1)
    first, last = tl.load(offsets + r), tl.load(offsets + r + 1)
    row_counts = counts + tl.load(rows + r) * stride
    histogram = tl.zeros((BINS,), tl.int32)
    for start in range(chunk * CHUNK, min((chunk + 1) * CHUNK, stride), BLOCK):
        m = start + tl.arange(0, BLOCK)
        level = tl.load(row_counts + m).to(tl.int32)
        for j in range(first, last):
            column = tl.load(columns + tl.load(positions + j) * stride + m).to(tl.int32)
            after, before = tl.load(new + j).to(tl.int32), tl.load(old + j).to(tl.int32)
            level += (column == after).to(tl.int32) - (column == before).to(tl.int32)
        if last > first:
            tl.store(row_counts + m, level.to(counts.dtype.element_ty))
        histogram += tl.histogram(tl.where(m < num_rows, level, num_levels), BINS)
    bins = tl.arange(0, BINS)
    at = (r.to(tl.int64) * num_chunks + chunk) * num_levels + bins
    tl.store(numbers + at, histogram, bins < num_levels)


@triton.jit
def _find(counts, rows, chunks, levels, ranks, found, num_rows, stride, CHUNK: tl.constexpr, BLOCK: tl.constexpr):
    n = tl.program_id(0)
    row_counts = counts + tl.load(rows + n) * stride
    chunk = tl.load(chunks + n).to(tl.int32)
    level = tl.load(levels + n).to(tl.int32)
    left = tl.load(ranks + n).to(tl.int32)  # rows at this level still to pass
    place = tl.zeros((), tl.int32)
    for start in range(chunk * CHUNK, min((chunk + 1) * CHUNK, stride), BLOCK):
        m = start + tl.arange(0, BLOCK)
        hit = ((tl.load(row_counts + m).to(tl.int32) == level) & (m < num_rows)).to(tl.int32)
        is_it = (hit > 0) & (tl.cumsum(hit, 0) == left + 1)
        place += tl.sum(tl.where(is_it, m, 0), 0)  # at most one of all is it
        left -= tl.sum(hit, 0)
    tl.store(found + n, place.to(tl.int64))


@triton.jit
def _agreement(
    columns,
    counts,
    rows,
    states,
    powers,
    sums,
    num_rows,
    stride,
    num_chunks,
    length,
    CHUNK: tl.constexpr,
    BLOCK: tl.constexpr,
):
    r, chunk = tl.program_id(0).to(tl.int64), tl.program_id(1)
    row_counts = counts + tl.load(rows + r) * stride
    row_sums = sums + (r * num_chunks + chunk) * length
    for start in range(chunk * CHUNK, min((chunk + 1) * CHUNK, stride), BLOCK):
        m = start + tl.arange(0, BLOCK)
        inside = m < num_rows
        level = tl.load(row_counts + m).to(tl.int32)
        weight = tl.load(powers + r * (length + 1) + level, inside, other=0.0)
        if tl.max(weight, 0) > 0.0:  # most blocks hold no row whose weight is not negligible
            for i in range(length):
                column = tl.load(columns + tl.cast(i, tl.int64) * stride + m)
                same = column == tl.load(states + r * length + i)
                tl.store(row_sums + i, tl.load(row_sums + i) + tl.sum(tl.where(same, weight, 0.0), 0))


def count_matches(columns: Tensor, states: Tensor, counts: Tensor) -> None:
    """See `torch_kernels.count_matches`."""
    stride = columns.stride(0)
    states_at_once = 65_535 * _STATES  # the second axis of a grid has at most 65,535 programs
    for start in range(0, len(states), states_at_once):
        some = states[start : start + states_at_once].contiguous()
        _count_matches[(stride // _ROWS, triton.cdiv(len(some), _STATES))](
            columns, some, counts[start:], len(some), stride, columns.shape[0], STATES=_STATES, ROWS=_ROWS
        )


def scan(columns: Tensor, counts: Tensor, rows: Tensor, moves: Moves, numbers: Tensor, chunk_size: int) -> None:
    """See `torch_kernels.scan`."""
    num_chunks, num_levels = numbers.shape[1:]
    _scan[(len(rows), num_chunks)](
        columns,
        counts,
        rows,
        moves.offsets,
        moves.positions,
        moves.old,
        moves.new,
        numbers,
        columns.shape[1],
        columns.stride(0),
        num_chunks,
        num_levels,
        CHUNK=chunk_size,
        BLOCK=ROWS_PER_BLOCK,
        BINS=triton.next_power_of_2(num_levels + 1),
    )


def find(counts: Tensor, rows: Tensor, chunks: Tensor, levels: Tensor, ranks: Tensor, chunk_size: int) -> Tensor:
    """See `torch_kernels.find`."""
    found = torch.empty_like(rows)
    if len(rows):
        _find[(len(rows),)](
            counts,
            rows,
            chunks,
            levels,
            ranks,
            found,
            counts.shape[1],
            counts.stride(0),
            CHUNK=chunk_size,
            BLOCK=ROWS_PER_BLOCK,
        )
    return found


def agreement(columns: Tensor, counts: Tensor, rows: Tensor, states: Tensor, powers: Tensor, chunk_size: int) -> Tensor:
    """See `torch_kernels.agreement`; sums of blocks are added in the order of the rows."""
    length, num_rows = columns.shape
    num_chunks = triton.cdiv(num_rows, chunk_size)
    sums = torch.zeros((len(rows), num_chunks, length), dtype=torch.float64, device=columns.device)
    _agreement[(len(rows), num_chunks)](
        columns,
        counts,
        rows,
        states.contiguous(),
        powers.contiguous(),
        sums,
        num_rows,
        columns.stride(0),
        num_chunks,
        length,
        CHUNK=chunk_size,
        BLOCK=ROWS_PER_BLOCK,
    )
    return sums.sum(1)
