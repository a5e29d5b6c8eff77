"""What a learner minimises: the batch of a step, drawn as a whole, and its loss, computed in parts."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping

import torch
from torch import nn

from pairflow.batches import Epochs, stratified_times
from pairflow.processes import Process
from pairflow.schedule import kappa
from pairflow.spec import ObjectiveName

Network = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # x_t int64 [B, D], t [B] -> logits [B, D, K]


class Objective(ABC):
    """A loss, with its data, as a function of (network, step).

    Attributes:
        modules: networks other than the learner's that the next step depends on; a checkpoint holds them too.
    """

    modules: Mapping[str, nn.Module] = {}

    def begin(self, step: int, averaged: nn.Module) -> None:
        """Called before every step (from 0) with the learner's averaged weights, which are only to be read."""
        return

    @abstractmethod
    def draw(self, step: int, generator: torch.Generator) -> tuple[torch.Tensor, ...]:
        """All that a step (from 0) depends on but the network: tensors with B rows each, cut alike for a part."""

    @abstractmethod
    def loss(self, network: Network, *rows: torch.Tensor) -> torch.Tensor:
        """Loss of some of the rows in nats per token, [b, D]."""


def _mixed(
    process: Process, logits: torch.Tensor, x_t: torch.Tensor, target: torch.Tensor, t: torch.Tensor
) -> torch.Tensor:
    """Eq. (3.9): the bound, which says nothing of t = 0, and cross-entropy, the more the nearer t is to 0."""
    share = 1 - kappa(t.float())[:, None]
    return process.loss(logits, x_t, target, t) + share * process.cross_entropy(logits, x_t, target, t)


# (process, logits [B, D, K], x_t [B, D], target [B, D], t [B]) -> nats per token, float32 [B, D]
Loss = Callable[[Process, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
LOSSES: dict[ObjectiveName, Loss] = {
    "elbo": lambda process, *rows: process.loss(*rows),
    "cross_entropy": lambda process, *rows: process.cross_entropy(*rows),
    "mixed": _mixed,
}
"""What `TrainingSpec.objective` can be."""


class Denoising(Objective):
    """The training loss of docs/method.md §3 at stratified t, on paired or independent sources.

    By default the process's integrand: Eq. (3.2) for uniform noise, Eq. (3.6) for masks. With independent sources its
    expectation bounds the negative log-likelihood, on pairs it does not.

    Args:
        batches: targets, and sources if they are paired.
        process: how they are corrupted.
        time_epsilon: ε; times are antithetic within a batch, in [ε, 1 − ε].
        objective: a name in `LOSSES`.
    """

    def __init__(
        self, batches: Epochs, process: Process, time_epsilon: float, objective: ObjectiveName = "elbo"
    ) -> None:
        self.batches, self.process, self.time_epsilon = batches, process, time_epsilon
        self.objective = objective

    def draw(self, step: int, generator: torch.Generator) -> tuple[torch.Tensor, ...]:
        """(x_t int64 [B, D], target int64 [B, D], t float32 [B])."""
        target, source = self.batches.batch(step)
        t = stratified_times(len(target), self.time_epsilon, generator)
        if source is None:
            source = self.process.draw_source((target.shape[0], target.shape[1]), generator)
        return self.process.corrupt(source, target, t, generator), target, t

    def loss(self, network: Network, *rows: torch.Tensor) -> torch.Tensor:
        """The objective's, [b, D]."""
        x_t, target, t = rows
        logits = network(x_t, self.process.network_time(t))
        return LOSSES[self.objective](self.process, logits, x_t, target, t)
