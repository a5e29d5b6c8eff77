"""The CPU engine: the backward walk sampled exactly, without ever forming the marginals (docs/method.md §2).

Dense engines compute S^i(z) for every position, D·M multiply-adds a step. But "move with probability c_t·S^i" is the
same as "draw u < c_t, draw a row m from the posterior, and move if d_m^i = z^i", independently for each position:

    P(u < c_t and d_m^i = z^i) = c_t·Σ_m w_m(z)·1[d_m^i = z^i] = c_t·S^i(z)          Eq. (2.9)

So a step only needs rows drawn from the posterior, for the few positions with u < c_t:

- The posterior's weights depend on a row's match count alone, so a draw is a draw of a *level* (how many tokens match)
  by the levels' total weights, P(l) ∝ H(l)·γ^l, Eq. (2.10), and then of a row uniformly among those at that level.
- Levels are counted from the best downwards, and only until every draw is decided whatever the rest holds.
- A position's move changes the counts by one comparison with a column of the support, Eq. (2.11); nothing is recounted.
- While M·γ^{2k−δ} < ε/(D·T), k moves from the start and δ the distance of the nearest other row, nothing is looked at,
  Eq. (2.12).

All passes over the support are branch-free loops over bytes that LLVM turns into vector instructions. For τ ≠ 1 the
marginals are needed after all: the matches of the rows at each level are counted position by position, in bytes.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pairflow.coupling.kernels import walk_rows
from pairflow.coupling.result import Coupled
from pairflow.rng import REPLICA_SHIFT
from pairflow.schedule import backward_times, d_kappa, flip_ceiling, gamma, kappa

if TYPE_CHECKING:
    from pairflow.spec import CouplingSpec


_ROWS_PER_TASK = 8  # rows that share one pass for their first counts; between two looks at progress and Ctrl-C


def couple_rows(
    target: NDArray[np.unsignedinteger],
    support: NDArray[np.unsignedinteger],
    *,
    vocab_size: int,
    spec: "CouplingSpec",
    sample_ids: NDArray[np.uint64],
    replicas: NDArray[np.uint64],
    num_threads: int,
    progress: Callable[[int], None] | None = None,
) -> Coupled:
    """Walks every row of `target` [B, D] back to its source; see `pairflow.coupling.couple`.

    Args:
        support: [M, D], the dtype of `target`; Fortran order saves a copy, as its columns are what is read.
        progress: called with the number of rows done since the last call, from the calling thread.
    """
    num_rows, length = target.shape
    columns = np.ascontiguousarray(support.T)
    points = np.ascontiguousarray(support if spec.temperature != 1 else support[:0])
    num_steps = spec.num_steps
    gammas, ceilings = np.ones(num_steps), np.empty(num_steps)
    for k, t in enumerate(backward_times(num_steps)):
        ceilings[k] = flip_ceiling(kappa(t), d_kappa(t), 1 / num_steps, vocab_size)
        if k > 0:
            gammas[k] = gamma(kappa(t), vocab_size)
    source = target.copy()
    num_scans = np.zeros(num_rows, np.int64)
    # A step without a scan is wrong with at most this probability a draw, and there are D·T draws. At τ ≠ 1 a small
    # change of S^i is no small change of the probability to move, so every step is scanned.
    tolerance = spec.epsilon / (length * num_steps) if spec.temperature == 1 else 0.0
    count_type = np.uint8 if length < 256 else np.uint16

    def walk(start: int) -> int:
        rows = slice(start, start + _ROWS_PER_TASK)
        walk_rows(
            source[rows],
            columns,
            points,
            np.uint64(vocab_size),
            gammas,
            ceilings,
            1 / spec.temperature,
            tolerance,
            np.uint64(spec.seed),
            sample_ids[rows],
            replicas[rows] << np.uint64(REPLICA_SHIFT),
            np.empty((len(source[rows]), len(support)), count_type),
            num_scans[rows],
        )
        return len(source[rows])

    # Our own threads, not numba's: they need no threading layer, can be nested in any caller, and numba's kernels
    # leave the GIL alone. Each row's bytes depend on its key only, never on the thread that computed them.
    pool = ThreadPoolExecutor(num_threads)
    try:
        for rows_done in pool.map(walk, range(0, num_rows, _ROWS_PER_TASK)):
            if progress is not None:
                progress(rows_done)
    finally:
        pool.shutdown(cancel_futures=True)  # Ctrl-C waits for the rows in hand only
    return Coupled(source, num_scans)
