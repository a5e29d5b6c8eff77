"""The keyed draws of `pairflow.rng` in torch's integer arithmetic, on any device: the same floats bit for bit.

torch has no unsigned 64-bit multiplication on all devices, but a signed one has the same 64 bits: words of 32 bits are
held in int64, their product may wrap to a negative number, and a shift with a mask gives back its high and low words.
"""

import torch
from torch import Tensor

from pairflow.rng import MULTIPLIERS, PURPOSE_SHIFT, ROUNDS, WEYL, Purpose

_LOW = 0xFFFFFFFF


def draw_units(
    seed: int, sample_ids: Tensor, replicas: Tensor, step: int, positions: Tensor, purpose: Purpose
) -> tuple[Tensor, Tensor]:
    """Two independent uniform floats in [0, 1) for each key: `pairflow.rng.draw_pairs`, at any list of positions.

    Args:
        sample_ids: int64, the 64 bits of each sample's id.
        replicas: int64, at their place in the counter's second word.
        positions: int64; the three tensors are broadcast against each other.

    Returns:
        Two float64 tensors of the broadcast shape.
    """
    words = replicas | (step | int(purpose) << PURPOSE_SHIFT)
    c0, c1, c2, c3 = torch.broadcast_tensors(positions, words, sample_ids & _LOW, (sample_ids >> 32) & _LOW)
    k0, k1 = seed & _LOW, (seed >> 32) & _LOW
    for _ in range(ROUNDS):
        product_0, product_1 = c0 * MULTIPLIERS[0], c2 * MULTIPLIERS[1]
        c0, c1 = ((product_1 >> 32) & _LOW) ^ c1 ^ k0, product_1 & _LOW
        c2, c3 = ((product_0 >> 32) & _LOW) ^ c3 ^ k1, product_0 & _LOW
        k0, k1 = (k0 + WEYL[0]) & _LOW, (k1 + WEYL[1]) & _LOW
    return _to_unit(c0, c1), _to_unit(c2, c3)


def _to_unit(high: Tensor, low: Tensor) -> Tensor:
    """Two words of 32 bits -> a float64 in [0, 1) with 53 random bits."""
    return (((high >> 5) << 26) | (low >> 6)).to(torch.float64) * 2.0**-53
