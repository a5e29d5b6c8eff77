"""A tiny data distribution whose best predictions are known in closed form: what a perfect network would say."""

import itertools

import numpy as np
import torch
from torch import nn

from pairflow.processes import Process

VOCAB_SIZE, LENGTH = 3, 3
POINTS = np.array([[0, 0, 0], [0, 1, 2], [2, 1, 2], [1, 0, 0]])
APART = np.array([[0, 0, 0], [0, 1, 2], [2, 1, 0], [1, 0, 2]])  # any two differ in at least two positions
SHARES = np.array([0.4, 0.3, 0.2, 0.1])
ENTROPY = float(-(SHARES * np.log(SHARES)).sum())


class ExactDenoiser(nn.Module):
    """The prediction that minimises the loss of the uniform process, from all data points.

    It is p(x_1^i = a | z without z^i) = Σ_m w_m^i 1[d_m^i = a] with w_m^i ∝ share_m·γ_t^{−h(d_m, z) outside i}:
    the closed form of docs/method.md §2 with the position itself left out, as both the loss and the posterior multiply
    the evidence of z^i in by themselves.
    """

    def __init__(self, points: np.ndarray = POINTS) -> None:
        super().__init__()
        self.points = torch.from_numpy(points)

    def forward(self, x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        odds = torch.log1p(VOCAB_SIZE * t.double() / (1 - t.double()))
        differs = (x_t[:, None] != self.points).double()
        elsewhere = differs.sum(dim=-1, keepdim=True) - differs
        return self._mean(-odds[:, None, None] * elsewhere)

    def _mean(self, log_likelihood: torch.Tensor) -> torch.Tensor:
        """Log probabilities [B, D, K] of the points under their likelihoods [B, M, D or 1]."""
        prior = torch.from_numpy(SHARES).log()[:, None]
        weights = (prior + log_likelihood).softmax(dim=1).expand(-1, -1, LENGTH)
        one_hot = nn.functional.one_hot(self.points, VOCAB_SIZE).double()
        return torch.einsum("bmd,mdk->bdk", weights, one_hot).log().clamp_min(-1e4)


class ExactUnmasker(ExactDenoiser):
    """The same for the absorbing process: of the points that agree with all unmasked tokens, at any time.

    A state that no point agrees with, which factorised steps can reach, gets the points with the fewest clashes.
    """

    def forward(self, x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        clashes = ((x_t[:, None] != self.points) & (x_t[:, None] != VOCAB_SIZE)).double().sum(dim=-1, keepdim=True)
        return self._mean(-1e3 * clashes)


def exact_model(process: Process, points: np.ndarray = POINTS) -> ExactDenoiser:
    """The perfect network of a process."""
    return (ExactUnmasker if process.name == "absorbing" else ExactDenoiser)(points)


def all_states(process: Process) -> torch.Tensor:
    """Every x_t that the process can hold: int64 [num_states^D, D]."""
    return torch.tensor(list(itertools.product(range(process.num_states), repeat=LENGTH)))


def likelihoods(process: Process, states: torch.Tensor, t: float) -> torch.Tensor:
    """q(x_t | x_1 = d_m), position by position, from the definition of the path: float64 [M, S, D]."""
    kept = (states == torch.from_numpy(POINTS)[:, None]).double()
    if process.name == "absorbing":
        noise = (states == VOCAB_SIZE).double()
    else:
        noise = torch.full(states.shape, 1 / VOCAB_SIZE, dtype=torch.float64)
    return t * kept + (1 - t) * noise
