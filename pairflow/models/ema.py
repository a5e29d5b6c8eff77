"""An exponential moving average of a model's weights, the weights used for all sampling."""

import copy

import torch
from torch import nn


class Ema:
    """Holds the averaged copy of a model.

    The decay is warmed up as min(decay, (1 + n)/(10 + n)) at update n, as in the UDLM and Duo releases, so
    that a short run is not dominated by its random initial weights.

    Attributes:
        model: the averaged copy, in evaluation mode and without gradients.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay
        self._averages: list[torch.Tensor] = list(self.model.parameters())
        self._weights: list[torch.Tensor] = list(model.parameters())

    @torch.no_grad()
    def update(self, num_updates: int) -> None:
        """Moves the average towards the model's present weights; `num_updates` were made before this one."""
        decay = min(self.decay, (1 + num_updates) / (10 + num_updates))
        torch._foreach_lerp_(self._averages, self._weights, 1 - decay)
