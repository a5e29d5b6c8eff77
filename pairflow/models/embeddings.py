"""Embeddings that both networks use: of time, and smooth ones of ordered values."""

import math

import torch
from torch import nn

_MAX_PERIOD = 10_000.0
_TIME_SCALE = 1000.0  # t in [0, 1] is spread over the range that the frequencies were made for


class TimeEmbedding(nn.Module):
    """Sinusoidal features of t followed by a two-layer perceptron: [B] -> [B, cond_size]."""

    def __init__(self, cond_size: int, num_features: int = 128) -> None:
        super().__init__()
        half = num_features // 2
        rates = torch.exp(-math.log(_MAX_PERIOD) * torch.arange(half) / half)
        self.register_buffer("rates", _TIME_SCALE * rates, persistent=False)
        self.mlp = nn.Sequential(nn.Linear(num_features, cond_size), nn.SiLU(), nn.Linear(cond_size, cond_size))

    def forward(self, t: torch.Tensor) -> torch.Tensor:
        angles = t.float()[:, None] * self.get_buffer("rates")
        return self.mlp(torch.cat([angles.cos(), angles.sin()], dim=-1))


def intensity_features(vocab_size: int, num_features: int) -> torch.Tensor:
    """Fourier features of the K intensities, in which close intensities lie close: float32 [K, num_features].

    Half-periods run geometrically from the whole range of intensities down to two neighbouring ones; a
    feature has mean square 1/2 at most. Used as the initial value of learned tables, so an image model starts
    out knowing that tokens are ordered and may still learn otherwise.
    """
    position = torch.linspace(0, 1, vocab_size, dtype=torch.float64)[:, None]
    half = (num_features + 1) // 2
    exponents = torch.linspace(0, 1, half, dtype=torch.float64)
    angles = math.pi * position * (vocab_size - 1) ** exponents
    return torch.cat([angles.cos(), angles.sin()], dim=-1)[:, :num_features].float()
