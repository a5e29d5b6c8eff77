"""Draws of levels (match counts) from histograms: `pairflow.coupling.kernels.draw_levels` for many rows, in torch."""

import torch
from torch import Tensor

_SUMS_AT_ONCE = 1 << 22  # float64 of the cumulative sums that are searched at once


def draw_levels(histogram: Tensor, gamma: float, units: Tensor, rows: Tensor) -> Tensor:
    """Draws a level for each of `units` [N] by P(l) ∝ hist[l]·γ^l, Eq. (2.10) of docs/method.md.

    Weights are in units of one row at the best level, and summed from the best level downwards. Levels whose rows all
    together weigh less than the last bit of 1 are left out: the sum is at least 1.

    Args:
        histogram: [R, D+1] int64, rows of the support by match count; not all zero.
        rows: [N] int64, the row of `histogram` that a unit belongs to.

    Returns:
        [N] int64.
    """
    best = best_level(histogram)
    most = int(histogram.sum(1).max())
    weights = torch.tensor(
        level_weights(gamma, 2.0**-54 / most, histogram.shape[1]), dtype=torch.float64, device=units.device
    )
    below_best = torch.arange(len(weights), device=units.device)
    levels = best[:, None] - below_best
    numbers = torch.where(levels >= 0, histogram.gather(1, levels.clamp(min=0)), 0)
    cumulative = numbers.to(torch.float64) * weights
    for j in range(1, len(weights)):  # one after the other, as the cpu engine does: a parallel sum rounds otherwise
        cumulative[:, j] += cumulative[:, j - 1]
    lowest = torch.where(numbers > 0, below_best, 0).amax(1)
    drawn = torch.empty_like(rows)
    units_at_once = max(1, _SUMS_AT_ONCE // len(weights))
    for start in range(0, len(units), units_at_once):
        some = rows[start : start + units_at_once]
        sums = cumulative[some]
        wanted = units[start : start + units_at_once] * sums[:, -1]
        chosen = torch.searchsorted(sums, wanted[:, None], right=True)[:, 0]
        drawn[start : start + units_at_once] = best[some] - torch.minimum(chosen, lowest[some])
    return drawn


def best_level(histogram: Tensor) -> Tensor:
    """[R], the highest level that a row is at."""
    levels = torch.arange(histogram.shape[1], device=histogram.device)
    return torch.where(histogram > 0, levels, 0).amax(1)


def level_weights(gamma: float, negligible: float, most: int) -> list[float]:
    """1, γ^-1, γ^-2, … above `negligible`, at most `most`; divided one by one, as the cpu engine does."""
    weights: list[float] = []
    weight = 1.0
    while weight > negligible and len(weights) < most:
        weights.append(weight)
        weight /= gamma
    return weights
