"""A part of the support as tensors on one device: match counts kept, and brought up to date by moves.

Recounting would read D tokens of each support row a step; the counts change by one comparison a move, and a walk makes
about 2·D moves over its T steps. Kept counts cost B·M bytes, of which a step reads and writes each once. On a GPU that
trade is worth it as long as a batch is chosen to fit (`bytes_per_row`): see `triton_kernels` for the figures.

Levels are counted by chunks of consecutive rows, so that the row of a rank is looked for in one chunk only, and no two
programs add to one number: nothing in here depends on the order in which a GPU does its work.
"""

from types import ModuleType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pairflow.coupling.parts import Array, Draws, Moves
from pairflow.coupling.torch_kernels import ROWS_PER_BLOCK

_LEAST_CHUNK = 4096  # rows of the support; small enough to find a row in, and a power of 2
_MOST_CHUNKS = 65_535  # programs along the second axis of a CUDA grid
# numpy's unsigned tokens -> torch's type of as many bytes: only equality matters, so 65,535 may be called −1
_TOKEN_TYPES = {1: torch.uint8, 2: torch.int16, 4: torch.int32}
_DRAWS_AT_ONCE = 1 << 22


class TensorPart:
    """A `pairflow.coupling.parts.SupportPart` on a torch device.

    Args:
        columns: [D, M] unsigned integers of 1, 2 or 4 bytes: the part's rows, column after column; see `columns_of`.
            Of a type that holds K − 1, which is not asked at each step, as a GPU would have to be waited for:
            `LocalParts.check` does before the walk.
        kernels: `torch_kernels` or `triton_kernels`.
    """

    def __init__(self, columns: Tensor, kernels: ModuleType):
        self._columns, self._kernels = columns, kernels
        self._length, self._num_rows = columns.shape
        self._chunk_size = _chunk_size(self._num_rows, self._length)
        self._num_chunks = -(-self._num_rows // self._chunk_size)
        self.largest_token = (1 << 8 * columns.element_size()) - 1
        self._counts = self._numbers = self._rows = torch.empty(0, device=columns.device)

    def start(self, states: Array) -> Tensor:
        """See `SupportPart`."""
        states = self._tensor(states)
        self._counts = self._numbers = torch.empty(0)  # frees the batch before
        self._counts = _padded(len(states), self._num_rows, _count_type(self._length), self._columns.device)
        self._kernels.count_matches(self._columns, self._tokens(states), self._counts)
        none = states.new_empty(0)
        return self.scan(
            torch.arange(len(states), device=states.device),
            Moves(states.new_zeros(len(states) + 1), none, none, none),
        )

    def scan(self, rows: Array, moves: Moves) -> Tensor:
        """See `SupportPart`."""
        self._rows = self._tensor(rows)
        moves = Moves(
            self._tensor(moves.offsets),
            self._tensor(moves.positions),
            self._tokens(self._tensor(moves.old)),
            self._tokens(self._tensor(moves.new)),
        )
        shape = (len(self._rows), self._num_chunks, self._length + 1)
        self._numbers = torch.empty(shape, dtype=torch.int32, device=self._columns.device)
        self._kernels.scan(self._columns, self._counts, self._rows, moves, self._numbers, self._chunk_size)
        return self._numbers.sum(1, dtype=torch.int64)

    def tokens(self, draws: Draws) -> Tensor:
        """See `SupportPart`."""
        rows, levels = self._tensor(draws.rows), self._tensor(draws.levels)
        ranks, positions = self._tensor(draws.ranks), self._tensor(draws.positions)
        chunks, inside = torch.empty_like(rows), torch.empty_like(ranks)
        draws_at_once = max(1, _DRAWS_AT_ONCE // self._num_chunks)
        for start in range(0, len(rows), draws_at_once):
            some = slice(start, start + draws_at_once)
            up_to = self._numbers[rows[some], :, levels[some]].cumsum(1, dtype=torch.int64)
            chunks[some] = (up_to <= ranks[some, None]).sum(1)
            before = up_to.gather(1, (chunks[some] - 1).clamp(min=0)[:, None])[:, 0]
            inside[some] = ranks[some] - torch.where(chunks[some] > 0, before, 0)
        found = self._kernels.find(self._counts, self._rows[rows], chunks, levels, inside, self._chunk_size)
        return self._columns[positions, found].to(torch.int64) & self.largest_token

    def agreement(self, states: Array, powers: Array) -> Tensor:
        """See `SupportPart`."""
        states = self._tokens(self._tensor(states))
        return self._kernels.agreement(
            self._columns, self._counts, self._rows, states, self._tensor(powers), self._chunk_size
        )

    def _tensor(self, array: Array) -> Tensor:
        if isinstance(array, np.ndarray) and not array.flags.writeable:
            array = array.copy()  # from another process; torch warns of arrays that it must not write to
        return torch.as_tensor(array, device=self._columns.device)

    def _tokens(self, tokens: Tensor) -> Tensor:
        """int64 tokens as the columns hold them."""
        return tokens.to(self._columns.dtype)


def columns_of(support: NDArray[np.unsignedinteger], device: torch.device) -> Tensor:
    """[M, D] unsigned integers of 1, 2 or 4 bytes as the columns [D, M] of a part."""
    num_rows, length = support.shape
    token_type = _TOKEN_TYPES[support.itemsize]
    columns = _padded(length, num_rows, token_type, device)
    for i, line in enumerate(columns):
        column = np.array(support[:, i])  # writeable and contiguous, as torch wants it
        line.copy_(torch.from_numpy(column.view(f"i{column.itemsize}") if column.itemsize > 1 else column))
    return columns


def bytes_per_row(num_rows: int, length: int) -> int:
    """Device memory that one row of a batch takes in a part of `num_rows` rows: counts; numbers and sums by chunk."""
    chunks = -(-num_rows // _chunk_size(num_rows, length))
    return _whole_blocks(num_rows) * _count_type(length).itemsize + 12 * chunks * (length + 1)


def _padded(num_lines: int, num_rows: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """[lines, M], each line of a whole number of blocks in memory; what lies behind row M is zero or left over."""
    return torch.zeros((num_lines, _whole_blocks(num_rows)), dtype=dtype, device=device)[:, :num_rows]


def _whole_blocks(num_rows: int) -> int:
    return -(-num_rows // ROWS_PER_BLOCK) * ROWS_PER_BLOCK


def _count_type(length: int) -> torch.dtype:
    """The smallest type that holds 0 to `length` and that torch has all operations for."""
    if length < 2**8:
        return torch.uint8
    return torch.int16 if length < 2**15 else torch.int32


def _chunk_size(num_rows: int, length: int) -> int:
    """Rows a chunk, a power of 2: so many that the numbers of its levels are few beside its counts."""
    chunk_size = _LEAST_CHUNK
    while chunk_size < min(16 * (length + 1), num_rows) or chunk_size * _MOST_CHUNKS < num_rows:
        chunk_size *= 2
    return chunk_size
