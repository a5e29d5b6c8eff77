"""The dense engine: the equations of docs/method.md §2 written out with one-hot matrices. It is the oracle.

    w_m(z) = γ^{−h(d_m,z)} / Σ_j γ^{−h(d_j,z)}            posterior, Eq. (2.1)
    p_{1|t}^i(a|z) = Σ_m w_m(z)·1[d_m^i = a]              closed-form denoiser, Eq. (2.2)
    S^i(z) = Σ_m w_m(z)·1[d_m^i = z^i]                    agreement, Eq. (2.3)
    P(position i moves) = c_t·S^i(z)                      one Euler step, Eq. (2.7); at τ ≠ 1 Eq. (2.8)

All of it is formed, over all M rows and K tokens. It costs D·M·K multiply-adds a row and step, and serves to check the
other engines, as an exact denoiser for small data, and as the baseline of the benchmarks.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pairflow.coupling.result import Coupled
from pairflow.rng import Purpose, draw_pairs
from pairflow.schedule import backward_times, d_kappa, flip_ceiling, gamma, kappa
from pairflow.spec import CouplingSpec

_ROWS_PER_BATCH = 256


@dataclass(frozen=True)
class DenseWalk:
    """One batch's backward walk, with everything that the fast engines never form.

    Attributes:
        source: [B, D] int64, where the walk ended.
        states: [T+1, B, D] int64, the states at t = 1, 1−h, …, 0; `states[0]` is the target.
        marginals: [T, B, D] float64, S^i of each state from which a step was taken.
    """

    source: NDArray[np.int64]
    states: NDArray[np.int64]
    marginals: NDArray[np.float64]


class DenseSupport:
    """The data points d_1..d_M as one-hot rows, and the posterior's quantities for any state.

    Args:
        support: [M, D] integers below `vocab_size`.
        dtype: float64 for an oracle; float32 is what a GPU implementation would use.
    """

    def __init__(self, support: NDArray[np.integer], vocab_size: int, dtype: torch.dtype = torch.float64):
        self.vocab_size = vocab_size
        self.dtype = dtype
        self.length = support.shape[1]
        self.one_hot = self._flat_one_hot(torch.from_numpy(support.astype(np.int64)))

    def _flat_one_hot(self, tokens: Tensor) -> Tensor:
        """[B, D] -> [B, D·K]."""
        one_hot = torch.zeros(*tokens.shape, self.vocab_size, dtype=self.dtype)
        return one_hot.scatter_(-1, tokens[..., None], 1).flatten(1)

    def posterior(self, state: Tensor, gamma: float) -> Tensor:
        """w_m(z) = γ^{−h(d_m, z)} / Σ_j γ^{−h(d_j, z)}, Eq. (2.1): [B, D] -> [B, M]."""
        matches = self._flat_one_hot(state) @ self.one_hot.T
        return torch.softmax((matches - self.length) * np.log(gamma), dim=-1)

    def denoiser(self, state: Tensor, gamma: float) -> Tensor:
        """p_{1|t}(a|z) = Σ_m w_m·1[d_m^i = a] at every position i, Eq. (2.2): [B, D] -> [B, D, K]."""
        return (self.posterior(state, gamma) @ self.one_hot).unflatten(1, (self.length, self.vocab_size))

    def marginal_agreement(self, state: Tensor, gamma: float) -> Tensor:
        """S^i(z) = Σ_m w_m·1[d_m^i = z^i] = p_{1|t}(z^i|z), Eq. (2.3): [B, D] -> [B, D]."""
        return self.denoiser(state, gamma).gather(-1, state[..., None])[..., 0]


def move_probability(agreement: Tensor, ceiling: float, vocab_size: int, temperature: float) -> Tensor:
    """Probability that a position leaves its token in one Euler step, from S^i; c_t·S^i at τ = 1.

    For τ ≠ 1 the ratio r of one other token's probability to the own one's is taken to the power 1/τ:
    r = c_t·S^i/(K−1) / (1 − c_t·S^i), and the probability is 1 − 1/(1 + (K−1)·r^{1/τ}), Eq. (2.8).
    """
    move = ceiling * agreement
    ratio = move / (vocab_size - 1) / (1 - move)
    return 1 - 1 / (1 + (vocab_size - 1) * ratio ** (1 / temperature))


def walk(
    target: NDArray[np.integer],
    support: DenseSupport,
    *,
    spec: CouplingSpec,
    sample_ids: NDArray[np.uint64],
    replicas: NDArray[np.uint64] | int = 0,
) -> DenseWalk:
    """PairFlow's Algorithm 1 (arXiv 2512.20063) for all rows of `target` [B, D] at once; all are in the support."""
    vocab_size, length = support.vocab_size, support.length
    state = torch.from_numpy(target.astype(np.int64))
    states, marginals = [state], []
    for step, t in enumerate(backward_times(spec.num_steps)):
        if step == 0:  # γ is infinite at t = 1: the posterior holds the copies of the target only
            agreement = torch.ones(state.shape, dtype=support.dtype)
        else:
            agreement = support.marginal_agreement(state, gamma(kappa(t), vocab_size))
        ceiling = flip_ceiling(kappa(t), d_kappa(t), 1 / spec.num_steps, vocab_size)
        probability = move_probability(agreement, ceiling, vocab_size, spec.temperature)
        move, _ = draw_pairs(spec.seed, sample_ids, step, length, Purpose.MOVE, replicas)
        other, _ = draw_pairs(spec.seed, sample_ids, step, length, Purpose.REPLACE, replicas)
        other_token = torch.from_numpy((other * (vocab_size - 1)).astype(np.int64))
        other_token += other_token >= state  # skips the token that is left
        state = torch.where(torch.from_numpy(move) < probability, other_token, state)
        states.append(state)
        marginals.append(agreement)
    return DenseWalk(
        source=state.numpy(),
        states=torch.stack(states).numpy(),
        marginals=torch.stack(marginals).to(torch.float64).numpy(),
    )


def couple_rows(
    target: NDArray[np.unsignedinteger],
    support: NDArray[np.unsignedinteger],
    *,
    vocab_size: int,
    spec: CouplingSpec,
    sample_ids: NDArray[np.uint64],
    replicas: NDArray[np.uint64],
    num_threads: int,
    progress: Callable[[int], None] | None = None,
) -> Coupled:
    """The engine's entry point, with the signature of `pairflow.coupling.cpu.couple_rows`."""
    dense = DenseSupport(support, vocab_size)
    source = np.empty_like(target)
    threads_before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        for rows, points in _batches(target, support, dense):
            source[rows] = walk(
                target[rows], points, spec=spec, sample_ids=sample_ids[rows], replicas=replicas[rows]
            ).source
            if progress is not None:
                progress(len(rows))
    finally:
        torch.set_num_threads(threads_before)
    return Coupled(source, np.full(len(target), spec.num_steps - 1))


def _batches(
    target: NDArray[np.unsignedinteger], support: NDArray[np.unsignedinteger], dense: DenseSupport
) -> Iterator[tuple[NDArray[np.int64], DenseSupport]]:
    """Rows, and the support they are walked against: one without a row of `target` gets it, for this row alone."""
    known = {row.tobytes() for row in np.ascontiguousarray(support)}
    present = np.array([row.tobytes() in known for row in np.ascontiguousarray(target)])
    rows = np.flatnonzero(present)
    for start in range(0, len(rows), _ROWS_PER_BATCH):
        yield rows[start : start + _ROWS_PER_BATCH], dense
    for row in np.flatnonzero(~present):
        yield np.array([row]), DenseSupport(np.concatenate([support, target[row : row + 1]]), dense.vocab_size)
