"""The noise schedule: κ_t and the quantities that follow from it (docs/method.md §1 and §2).

t = 0 is the source (noise) and t = 1 is the data. All functions take a float or an array or tensor of times and
return the same kind.
"""

from typing import TypeVar

Times = TypeVar("Times")  # float, numpy array or torch tensor


def kappa(t: Times) -> Times:
    """κ_t of Eq. (1.1), the probability that a token at time t is already the target's; linear: κ_t = t."""
    return t


def d_kappa(t: Times) -> Times:
    """κ̇_t, the derivative of κ by time; linear: 1."""
    return t * 0 + 1  # type: ignore[operator, return-value]


def gamma(kappa_t: float, vocab_size: int) -> float:
    """γ_t = 1 + Kκ_t/(1 − κ_t), Eq. (1.3): odds of a matching token against one given other token; κ_t < 1."""
    return 1 + vocab_size * kappa_t / (1 - kappa_t)


def flip_ceiling(kappa_t: float, d_kappa_t: float, step_size: float, vocab_size: int) -> float:
    """c_t = h·κ̇_t (K−1) / (1 + (K−1)κ_t), Eq. (2.7): in one Euler step a position with S^i = 1 moves with this chance.

    The velocity κ̇_t (K·1[a = z^i] − 1) / (1 + (K−1)κ_t) · S^i(z), Eq. (2.6), balances Eq. (2.5); it is Eq. 12 of
    PairFlow (arXiv 2512.20063). At most 1 for the linear schedule on the grid t = h, 2h, …, 1.
    """
    return step_size * d_kappa_t * (vocab_size - 1) / (1 + (vocab_size - 1) * kappa_t)


def backward_times(num_steps: int) -> list[float]:
    """The times t = 1, 1−h, …, h at which the backward Euler walk takes its steps, h = 1/T."""
    return [(num_steps - k) / num_steps for k in range(num_steps)]
