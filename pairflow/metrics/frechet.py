"""The Fréchet distance between two sets of features, each taken as a Gaussian (Heusel et al., arXiv 1706.08500)."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True)
class Gaussian:
    """Mean [F] and covariance [F, F] of features, float64."""

    mean: np.ndarray
    covariance: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray) -> "Gaussian":
        """Sample mean and unbiased covariance of features [N, F], N ≥ 2."""
        wide = np.asarray(features, np.float64)
        return cls(wide.mean(axis=0), np.atleast_2d(np.cov(wide, rowvar=False)))

    @cached_property
    def root(self) -> np.ndarray:
        """The covariance's symmetric square root [F, F], computed once."""
        values, vectors = np.linalg.eigh(self.covariance)
        return (vectors * np.sqrt(values.clip(min=0))) @ vectors.T


def frechet_distance(first: Gaussian, reference: Gaussian) -> float:
    """|μ₁ − μ₂|² + tr(C₁ + C₂ − 2 (C₂^½ C₁ C₂^½)^½): squared, as FID is reported.

    Symmetric eigendecompositions stay real and accurate for singular covariances, which a general matrix root
    does not. The distance is symmetric; the reference is the one whose root is kept for the next time.
    """
    inner = np.linalg.eigvalsh(reference.root @ first.covariance @ reference.root)
    cross = np.sqrt(inner.clip(min=0)).sum()
    shift = np.square(first.mean - reference.mean).sum()
    return float(max(0.0, shift + np.trace(first.covariance) + np.trace(reference.covariance) - 2 * cross))
