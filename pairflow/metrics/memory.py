"""What samples owe to rows that were learned by heart: copies of training rows, and how near the nearest one is."""

import hashlib
from collections.abc import Mapping

import numpy as np

from pairflow.datasets.base import TokenDataset

MOST_COMPARISONS = 2**33
"""Tokens that are compared for one set of samples: a few seconds of one core."""
FEWEST_ROWS = 100
_COUNTED = 2**18  # distances that are counted together, a byte each where rows have no more than 255 tokens
_SEED = 0


class Memory:
    """Compares rows with the training part, token by token, whatever the kind of data.

    Metrics:
        training_match_rate: fraction of samples that equal a training row.
        nearest_training_hamming: Hamming distance of a sample to the nearest training row, on average, Eq. (6.6) of
            docs/method.md. Where N·M·D is above `MOST_COMPARISONS`, of the first samples only, at least `FEWEST_ROWS`.
        unique_rate: number of distinct samples divided by N.

    `facts` has the first two for the held-out part, a seeded choice of it where it is large: what samples get that
    were drawn as the data was. Fewer tokens than that, and more copies, are memory.
    """

    def __init__(self, dataset: TokenDataset) -> None:
        train, held_out = dataset.part("train").tokens, dataset.part("test").tokens
        self._columns = np.ascontiguousarray(train.T)
        self._known = set(_keys(train))
        self.facts: Mapping[str, float] = {}
        if len(held_out):
            order = np.random.default_rng(_SEED).permutation(len(held_out))
            self.facts = {f"held_out_{name}": value for name, value in self._compare(held_out[order]).items()}

    def measure(self, tokens: np.ndarray) -> dict[str, float]:
        """Metrics of samples [N, D], tokens of the dataset; see the class."""
        tokens = np.ascontiguousarray(tokens, self._columns.dtype)
        return self._compare(tokens) | {"unique_rate": len(set(_keys(tokens))) / len(tokens)}

    def _compare(self, tokens: np.ndarray) -> dict[str, float]:
        at_most = max(FEWEST_ROWS, MOST_COMPARISONS // self._columns.size)
        return {
            "training_match_rate": sum(key in self._known for key in _keys(tokens)) / len(tokens),
            "nearest_training_hamming": float(self._nearest(tokens[:at_most]).mean()),
        }

    def _nearest(self, tokens: np.ndarray) -> np.ndarray:
        """min_m h(d_m, row) of each row, int64 [N]: column by column, as a column of all training rows is contiguous.

        As many rows at a time as keep their counts in a core's cache.
        """
        length, num_known = self._columns.shape
        at_once = max(1, _COUNTED // num_known)
        nearest = []
        for start in range(0, len(tokens), at_once):
            rows = tokens[start : start + at_once]
            differing = np.zeros((len(rows), num_known), np.min_scalar_type(length))
            for column, wanted in zip(self._columns, rows.T, strict=True):
                differing += column != wanted[:, None]
            nearest.append(differing.min(axis=1))
        return np.concatenate(nearest).astype(np.int64)


def _keys(tokens: np.ndarray) -> list[bytes]:
    """A digest a row, so that long rows take no more memory than short ones."""
    return [hashlib.blake2b(row, digest_size=16).digest() for row in np.ascontiguousarray(tokens)]
