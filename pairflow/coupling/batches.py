"""Arrays in, arrays out: the walk of `lockstep` over all rows, a batch at a time."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from pairflow.coupling.lockstep import walk
from pairflow.coupling.parts import SplitSupport
from pairflow.coupling.result import Coupled
from pairflow.coupling.walk_plan import WalkPlan

if TYPE_CHECKING:
    from pairflow.spec import CouplingSpec


def couple_batches(
    target: NDArray[np.unsignedinteger],
    support: SplitSupport,
    *,
    vocab_size: int,
    spec: "CouplingSpec",
    sample_ids: NDArray[np.uint64],
    replicas: NDArray[np.uint64],
    rows_per_batch: int,
    device: torch.device | str,
    progress: Callable[[int], None] | None = None,
) -> Coupled:
    """Walks every row of `target` [B, D] back to its source; see `pairflow.coupling.couple`.

    Args:
        support: the parts, which keep the counts of one batch at a time.
        spec: a CouplingSpec, or anything with its fields.
        device: of the walk's own arithmetic.
    """
    num_rows, length = target.shape
    plan = WalkPlan(vocab_size, length, spec.num_steps, spec.seed, spec.temperature, spec.epsilon)
    source = np.empty_like(target)
    num_scans = np.empty(num_rows, np.int64)
    for start in range(0, num_rows, rows_per_batch):
        rows = slice(start, start + rows_per_batch)
        states, scans = walk(
            torch.from_numpy(target[rows].astype(np.int64)).to(device),
            torch.from_numpy(sample_ids[rows].astype(np.int64)).to(device),  # the same 64 bits
            torch.from_numpy(replicas[rows].astype(np.int64)).to(device),
            support,
            plan,
        )
        source[rows] = states.cpu().numpy()
        num_scans[rows] = scans.cpu().numpy()
        if progress is not None:
            progress(len(scans))
    return Coupled(source, num_scans)
