"""Noise processes: how data is corrupted, what the network is trained on, and how a reverse step is taken.

`PROCESSES` is the registry and `build` its dispatcher. t = 0 is the source (noise) and t = 1 is the data.
"""

from collections.abc import Callable
from typing import Protocol

import torch

from pairflow.errors import SpecError
from pairflow.processes.uniform import UniformProcess


class Process(Protocol):
    """What training and sampling ask of a process."""

    vocab_size: int

    def draw_source(self, shape: tuple[int, int], generator: torch.Generator) -> torch.Tensor:
        """Source points x_0 of the independent coupling: int64 [B, D], on the generator's device."""

    def corrupt(
        self, source: torch.Tensor, target: torch.Tensor, t: torch.Tensor, generator: torch.Generator
    ) -> torch.Tensor:
        """x_t on the path from `source` to `target` (int64 [B, D]) at the times `t` [B]."""

    def loss(self, logits: torch.Tensor, x_t: torch.Tensor, target: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """The continuous-time negative ELBO's integrand at `t`, in nats per token: float32 [B, D]."""

    def posterior(self, probs: torch.Tensor, x_t: torch.Tensor, t: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        """Distribution of x_s given x_t, s > t towards the data, for predicted `probs`: [B, D, K]."""


PROCESSES: dict[str, Callable[[int], Process]] = {"uniform": UniformProcess}


def build(name: str, vocab_size: int) -> Process:
    """The process called `name` over `vocab_size` tokens.

    Raises:
        SpecError: no process has that name.
    """
    if name not in PROCESSES:
        raise SpecError(f"process: got {name!r}, expected one of {', '.join(sorted(PROCESSES))}")
    return PROCESSES[name](vocab_size)


__all__ = ["PROCESSES", "Process", "UniformProcess", "build"]
