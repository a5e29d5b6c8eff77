"""What training and sampling ask of a noise process, and the reverse steps that all processes share."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch

from pairflow.errors import SpecError
from pairflow.schedule import kappa

Prediction = Literal["others", "all"]
"""From which positions of x_t a network predicts a token of x_1: the *other* ones, or all of them."""


class Process(ABC):
    """A path x_t^i = x_1^i with probability κ_t, else noise, each position independently of the others.

    Attributes:
        name: in the registry and in `TrainingSpec.process`.
        vocab_size: K, the data's tokens 0 … K−1, which a network predicts.
        num_states: the tokens that x_t can hold, which a network reads: K, or K + 1 with a mask.
        time_free: whether the best prediction depends on x_t alone. The network is then always asked at the same
            time, and its answer holds until a token changes.
        predicts: what the networks were trained for whose probabilities it is given. "others" is π of Eq. (3.4), which
            the bound teaches; "all" is p_{1|t} itself, which cross-entropy teaches. Every method takes either, as
            `denoiser` and `others` turn each into the other.
        of_the_data: whether it is made of the data's marginals, which come with the data or a checkpoint.
        tensors: what it is made of, by name, for checkpoints.
    """

    name: str
    num_states: int
    time_free: bool
    of_the_data: bool = False
    tensors: Mapping[str, torch.Tensor] = {}

    def __init__(self, vocab_size: int, predicts: Prediction = "others") -> None:
        if vocab_size < 2:
            raise SpecError(f"vocab_size: got {vocab_size}, expected at least 2 tokens")
        self.vocab_size = vocab_size
        self.predicts = predicts

    @abstractmethod
    def draw_source(self, shape: tuple[int, int], generator: torch.Generator) -> torch.Tensor:
        """Source points x_0 of the independent coupling: int64 [B, D], on the generator's device."""

    @abstractmethod
    def keyed_source(self, seed: int, sample_ids: np.ndarray, length: int) -> np.ndarray:
        """The source points of samples, each a pure function of (seed, sample): int64 [B, D]."""

    @abstractmethod
    def loss(self, logits: torch.Tensor, x_t: torch.Tensor, target: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """The continuous-time negative ELBO's integrand at `t`, in nats per token: float32 [B, D]."""

    @abstractmethod
    def cross_entropy(
        self, logits: torch.Tensor, x_t: torch.Tensor, target: torch.Tensor, t: torch.Tensor
    ) -> torch.Tensor:
        """−log p_{1|t}(x_1 | x_t), Eq. (3.7), in nats per token: float32 [B, D]."""

    @abstractmethod
    def denoiser(self, probs: torch.Tensor, x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """p_{1|t}(x_1 | x_t) over all states, which a network's `probs` [B, D, K] stand for: [B, D, num_states]."""

    @abstractmethod
    def others(self, probs: torch.Tensor, x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """π of Eq. (3.4), a token's law given the other positions, which `probs` stand for: [B, D, K]."""

    @abstractmethod
    def posterior(self, probs: torch.Tensor, x_t: torch.Tensor, t: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        """Distribution of x_s given x_t, s > t towards the data, for a network's `probs`: [B, D, num_states]."""

    @abstractmethod
    def noise(self, like: torch.Tensor) -> torch.Tensor:
        """Distribution of a token of x_0: [num_states], or by position; with the dtype and device of `like`."""

    @abstractmethod
    def undetermined(self, x_t: torch.Tensor) -> torch.Tensor:
        """Where a prediction is of use, as x_t does not settle x_1 by itself: bool [B, D]."""

    def network_time(self, t: torch.Tensor) -> torch.Tensor:
        """The time that the network is told, [B]."""
        return torch.zeros_like(t) if self.time_free else t

    def corrupt(
        self, source: torch.Tensor, target: torch.Tensor, t: torch.Tensor, generator: torch.Generator
    ) -> torch.Tensor:
        """x_t on the path from `source` to `target`: x_t^i = x_1^i with probability κ_t, else x_0^i, Eq. (1.1).

        Args:
            source: x_0, int64 [B, D].
            target: x_1, int64 [B, D].
            t: times in [0, 1], float [B].
            generator: on the tensors' device; the only randomness used.

        Returns:
            x_t, int64 [B, D].
        """
        draws = torch.rand(target.shape, generator=generator, device=generator.device)
        return torch.where(draws < kappa(t)[:, None], target, source)

    def euler(self, probs: torch.Tensor, x_t: torch.Tensor, t: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        """Flow matching's step from t to s > t: a position jumps to a draw of p_{1|t}, or stays.

        The forward velocity is κ̇/(1−κ)·(p_{1|t} − δ_{x_t}), docs/method.md, Eq. (2.4). With p_{1|t} held fixed from t
        to s a position jumps with probability j = (κ_s − κ_t)/(1 − κ_t), which never exceeds 1:

            P(x_s = a | x_t) = (1 − j)·1[a = x_t] + j·p_{1|t}(a)          Eq. (4.2)

        For the linear schedule j is h·κ̇/(1−κ), the first-order step itself. Given the exact p_{1|t}, every position's
        own marginal stays exact, for whatever coupling p_{1|t} is of.

        Returns:
            Probabilities of x_s, [B, D, num_states] in the dtype of `probs`.
        """
        kappa_t, kappa_s = (kappa(time.to(probs.dtype))[:, None, None] for time in (t, s))
        jump = (kappa_s - kappa_t) / (1 - kappa_t)
        step = jump * self.denoiser(probs, x_t, t)
        return step.scatter_add_(-1, x_t[..., None], (1 - jump).expand(*x_t.shape, 1))

    def renoised(self, probs: torch.Tensor, x_t: torch.Tensor, t: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        """A draw of p_{1|t} brought back to time s: Σ_a p_{1|t}(a)·q(x_s | x_1 = a), [B, D, num_states]."""
        kappa_s = kappa(s.to(probs.dtype))[:, None, None]
        return kappa_s * self.denoiser(probs, x_t, t) + (1 - kappa_s) * self.noise(probs)

    def corrected(
        self, probs: torch.Tensor, x_t: torch.Tensor, t: torch.Tensor, s: torch.Tensor, weight: float
    ) -> torch.Tensor:
        """The Ψ step (arXiv 2602.21185), Eq. (4.3): the posterior mixed with renoised predictions, by `weight`, 0 to 1.

        Given x_1, q(x_s | x_t, x_1) averaged over x_t is q(x_s | x_1), and q(x_s | x_1) does not depend on x_t: any
        mixture of both keeps the marginals. Renoising lets a token that was drawn badly be drawn again.
        """
        return (1 - weight) * self.posterior(probs, x_t, t, s) + weight * self.renoised(probs, x_t, t, s)
