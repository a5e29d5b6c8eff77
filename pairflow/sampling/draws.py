"""Categorical draws in float64, and the nucleus that they can be confined to."""

import torch
import torch.nn.functional as nnf


def draw_categorical(probs: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
    """Inverse-CDF draws, min{a : Σ_{b≤a} p_b > u·Σ_b p_b}, Eq. (4.5) of docs/method.md: never of probability 0.

    Args:
        probs: float64 [B, D, K], need not sum to exactly one.
        draws: u in [0, 1), float64 [B, D].

    Returns:
        int64 [B, D].
    """
    cumulative = probs.cumsum(dim=-1)
    level = draws[..., None] * cumulative[..., -1:]
    tokens = torch.searchsorted(cumulative, level, right=True).squeeze(-1)
    return tokens.clamp_max(probs.shape[-1] - 1)


def nucleus(probs: torch.Tensor, top_p: float) -> torch.Tensor:
    """Confines `probs` to the fewest likeliest tokens that together hold at least `top_p` (arXiv 1904.09751).

    Args:
        probs: [B, D, K], summing to one over K.
        top_p: above 0 to 1; at 1 nothing changes. The likeliest token always stays.

    Returns:
        [B, D, K], summing to one over K; of equally likely tokens the first ones stay.
    """
    if top_p >= 1:
        return probs
    ordered, tokens = probs.sort(dim=-1, descending=True, stable=True)
    before = nnf.pad(ordered.cumsum(dim=-1)[..., :-1], (1, 0))
    kept = torch.zeros_like(probs).scatter_(-1, tokens, ordered * (before < top_p))
    return kept / kept.sum(dim=-1, keepdim=True)
