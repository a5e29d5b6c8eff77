"""Metrics for any token array, about which nothing is known but its rows."""

from collections.abc import Mapping

import numpy as np

from pairflow import metrics
from pairflow.datasets.base import TokenDataset
from pairflow.metrics.memory import Memory


class TokenEvaluator:
    """Compares samples with held-out rows by their marginals, and with training rows by `Memory`.

    Metrics:
        marginal_total_variation: ½ Σ_a |p̂(a) − q̂(a)| between the samples' and the held-out rows' marginal of a
            position, averaged over positions, Eq. (6.4) of docs/method.md; 0 to 1. Blind to dependence between
            positions.
        neighbour_total_variation: the same for the pairs (x^i, x^{i+1}), which sees the nearest dependence;
            with few rows and a large K it is dominated by sampling noise, see `facts`. Absent for D = 1.
        those of `Memory`.

    `facts` has both distances between the training part and the held-out part: what perfect samples would
    get, and what `Memory` says of held-out rows.
    """

    headline = metrics.Headline("marginal_total_variation", "marginal total variation", higher_is_better=False)
    notes: tuple[str, ...] = ()

    def __init__(self, dataset: TokenDataset) -> None:
        self._dataset = dataset
        self._held_out = dataset.part("test").tokens
        train = dataset.part("train").tokens
        self._memory = Memory(dataset)
        distances = {f"train_{name}": value for name, value in self._distances(train).items()}
        self.facts: Mapping[str, float] = distances | dict(self._memory.facts)

    def measure(self, samples: np.ndarray) -> dict[str, float]:
        """Metrics of samples [N, D]; see the class."""
        tokens = metrics.check_samples(samples, self._dataset).astype(self._held_out.dtype)
        return self._distances(tokens) | self._memory.measure(tokens)

    def _distances(self, tokens: np.ndarray) -> dict[str, float]:
        held_out = self._held_out
        distances = {"marginal_total_variation": total_variation(tokens, held_out)}
        if tokens.shape[1] > 1:
            pairs = (_neighbours(rows, self._dataset.vocab_size) for rows in (tokens, held_out))
            distances["neighbour_total_variation"] = total_variation(*pairs)
        return distances


def total_variation(first: np.ndarray, second: np.ndarray) -> float:
    """Total variation between the marginals of two arrays [N, D] and [V, D], averaged over the D positions."""
    distances = []
    for left, right in zip(first.T, second.T, strict=True):
        values, codes = np.unique(np.concatenate([left, right]), return_inverse=True)
        left_share = np.bincount(codes[: len(left)], minlength=len(values)) / len(left)
        right_share = np.bincount(codes[len(left) :], minlength=len(values)) / len(right)
        distances.append(0.5 * np.abs(left_share - right_share).sum())
    return float(np.mean(distances))


def _neighbours(tokens: np.ndarray, vocab_size: int) -> np.ndarray:
    """Each pair of adjacent tokens as one number, uint64 [N, D − 1]."""
    wide = tokens.astype(np.uint64)
    return wide[:, :-1] * np.uint64(vocab_size) + wide[:, 1:]
