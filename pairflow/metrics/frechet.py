"""The Fréchet distance between two sets of features, each taken as a Gaussian (Heusel et al., arXiv 1706.08500)."""

from dataclasses import dataclass

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


def frechet_distance(first: Gaussian, second: Gaussian) -> float:
    """|μ₁ − μ₂|² + tr(C₁ + C₂ − 2 (C₁^½ C₂ C₁^½)^½): squared, as FID is reported.

    Symmetric eigendecompositions stay real and accurate for singular covariances, which a general matrix root
    does not.
    """
    root = _root(first.covariance)
    inner = np.linalg.eigvalsh(root @ second.covariance @ root)
    cross = np.sqrt(inner.clip(min=0)).sum()
    shift = np.square(first.mean - second.mean).sum()
    return float(max(0.0, shift + np.trace(first.covariance) + np.trace(second.covariance) - 2 * cross))


def _root(covariance: np.ndarray) -> np.ndarray:
    """The symmetric square root of a positive semi-definite matrix."""
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
