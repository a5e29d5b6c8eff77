"""What a learner minimises: the batch of a step, drawn as a whole, and its loss, computed in parts."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping

import torch
from torch import nn

from pairflow.batches import Batches, stratified_times
from pairflow.processes import Process

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


class Denoising(Objective):
    """The training loss of docs/method.md §3: the process's integrand, on paired or independent sources.

    At stratified t the mean over positions of Eq. (3.2) for uniform noise, of Eq. (3.6) for masks; with independent
    sources its expectation bounds the negative log-likelihood, on pairs it does not.

    Args:
        batches: targets, and sources if they are paired.
        process: how they are corrupted.
        time_epsilon: ε; times are antithetic within a batch, in [ε, 1 − ε].
    """

    def __init__(self, batches: Batches, process: Process, time_epsilon: float) -> None:
        self.batches, self.process, self.time_epsilon = batches, process, time_epsilon

    def draw(self, step: int, generator: torch.Generator) -> tuple[torch.Tensor, ...]:
        """(x_t int64 [B, D], target int64 [B, D], t float32 [B])."""
        target, source = self.batches.batch(step)
        t = stratified_times(len(target), self.time_epsilon, generator)
        if source is None:
            source = self.process.draw_source((target.shape[0], target.shape[1]), generator)
        return self.process.corrupt(source, target, t, generator), target, t

    def loss(self, network: Network, *rows: torch.Tensor) -> torch.Tensor:
        """The negative ELBO's integrand, [b, D]."""
        x_t, target, t = rows
        return self.process.loss(network(x_t, self.process.network_time(t)), x_t, target, t)
