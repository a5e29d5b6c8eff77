"""The Fréchet distance between two sets of features, each taken as a Gaussian (Heusel et al., arXiv 1706.08500)."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Gaussian:
    """A Gaussian of F features.

    Attributes:
        mean: μ, float64 [F].
        factor: A, float64 [R, F], with the covariance C = AᵀA.
    """

    mean: np.ndarray
    factor: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray) -> "Gaussian":
        """Sample mean and unbiased covariance of features [N, F], N ≥ 2."""
        wide = np.asarray(features, np.float64)
        mean = wide.mean(axis=0)
        centred = (wide - mean) / np.sqrt(len(wide) - 1)
        # Fewer rows than features are a small factor themselves.
        return cls(mean, centred) if len(wide) <= wide.shape[1] else cls.of_moments(mean, centred.T @ centred)

    @classmethod
    def of_moments(cls, mean: np.ndarray, covariance: np.ndarray) -> "Gaussian":
        """From a mean [F] and a positive semi-definite covariance [F, F], which may be singular."""
        values, vectors = np.linalg.eigh(covariance)
        return cls(np.asarray(mean, np.float64), np.sqrt(values.clip(min=0))[:, None] * vectors.T)


def frechet_distance(first: Gaussian, second: Gaussian) -> float:
    """|μ₁ − μ₂|² + tr(C₁ + C₂ − 2 (C₁^½ C₂ C₁^½)^½), Eq. (6.2) of docs/method.md: squared, as FID is reported.

    The trace of that root is the sum of the singular values of A₁A₂ᵀ, which stay real and accurate for singular
    covariances, as a general matrix root does not.
    """
    shift = np.square(first.mean - second.mean).sum()
    spread = np.square(first.factor).sum() + np.square(second.factor).sum()
    cross = np.linalg.svd(first.factor @ second.factor.T, compute_uv=False).sum()
    return float(max(0.0, shift + spread - 2 * cross))
