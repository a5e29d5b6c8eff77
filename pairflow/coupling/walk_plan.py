"""What a walk draws, as plain values: all that a process needs to know, without a spec."""

from dataclasses import dataclass

import numpy as np

from pairflow.schedule import backward_times, d_kappa, flip_ceiling, gamma, kappa

_NO_EXPONENT = -(2**40)  # below every exponent of γ: no state dominates


@dataclass(frozen=True)
class WalkPlan:
    """What to draw, as plain values; the fields are those of `pairflow.spec.CouplingSpec`, K and D."""

    vocab_size: int
    length: int
    num_steps: int
    seed: int
    temperature: float = 1.0
    epsilon: float = 1e-9

    @property
    def exact_marginals(self) -> bool:
        """Whether S^i itself is needed (τ ≠ 1), and not only draws with this probability."""
        return self.temperature != 1

    def ceiling(self, step: int) -> float:
        """c_t of a step, Eq. (2.7)."""
        t = backward_times(self.num_steps)[step]
        return flip_ceiling(kappa(t), d_kappa(t), 1 / self.num_steps, self.vocab_size)

    def gamma(self, step: int) -> float:
        """γ_t of a step after the first, where it is infinite, Eq. (1.3)."""
        return gamma(kappa(backward_times(self.num_steps)[step]), self.vocab_size)

    def dominating_exponent(self, step: int, num_rows: int) -> int:
        """The largest e with M·γ^e below ε/(D·T), a draw's tolerance: up to it a step needs no scan, Eq. (2.12)."""
        tolerance = self.epsilon / (self.length * self.num_steps)
        if self.exact_marginals or tolerance == 0:
            return _NO_EXPONENT
        weights = num_rows * np.float64(self.gamma(step)) ** -np.arange(1.0, self.length + 1)
        enough = np.flatnonzero(weights < tolerance)
        return -int(enough[0]) - 1 if len(enough) else _NO_EXPONENT
