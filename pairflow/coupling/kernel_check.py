"""Do two implementations of the passes over match counts agree? Asked once a coupling, of some of its rows.

Triton compiles its kernels anew for each kind of GPU and each release of it, so an engine that trusted them unseen
would trust every compiler to come.
"""

from types import ModuleType

import numpy as np
import torch
from numpy.typing import NDArray

from pairflow.coupling.parts import Draws, Moves
from pairflow.coupling.tensor_part import TensorPart, columns_of

_ROWS, _STATES = 5000, 8  # more than one chunk of rows


def disagreement(
    kernels: ModuleType,
    trusted: ModuleType,
    support: NDArray[np.unsignedinteger],
    device: torch.device,
    num_rows: int = _ROWS,
) -> str | None:
    """The first pass in which `kernels` differ from `trusted` on the first rows of `support`, or None."""
    columns = columns_of(support[:num_rows], device)
    parts = [TensorPart(columns, each) for each in (kernels, trusted)]
    targets = torch.from_numpy(support[:_STATES].astype(np.int64)).to(device)
    states = targets.roll(1, 0)  # other rows' tokens at every second position: real tokens, new matches
    states[:, ::2] = targets[:, ::2]
    mine, theirs = (part.start(targets) for part in parts)
    if not torch.equal(mine, theirs):
        return "first counts"
    rows = torch.arange(len(targets), device=device)
    changed = states != targets
    offsets = torch.cat([rows.new_zeros(1), changed.sum(1).cumsum(0)])
    moves = Moves(offsets, changed.nonzero()[:, 1], targets[changed], states[changed])
    mine, theirs = (part.scan(rows, moves) for part in parts)
    if not torch.equal(mine, theirs):
        return "counts after moves"
    at, levels = theirs.nonzero(as_tuple=True)  # the first, middle and last row of every level of every state
    numbers = theirs[at, levels]
    for ranks in (torch.zeros_like(numbers), numbers // 2, numbers - 1):
        draws = Draws(at, levels, ranks, levels % targets.shape[1])
        mine, theirs = (part.tokens(draws) for part in parts)
        if not torch.equal(mine, theirs):
            return "rows found by rank"
    powers = torch.arange(targets.shape[1] + 1, dtype=torch.float64, device=device).expand(len(targets), -1)
    mine, theirs = (part.agreement(states, powers) for part in parts)  # whole numbers: sums without rounding
    return None if torch.equal(mine, theirs) else "sums of weights"
