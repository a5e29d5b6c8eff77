"""From Gaussian noise to uniform noise: κ of the discrete state that a noised one-hot vector's argmax is.

With w = α̃·onehot(x_1) + σ̃·ε and x = argmax(w), the token of x_1 wins with probability P(r), r = α̃/σ̃, and every other
token with the same remaining chance. So x is distributed as a state of the uniform process with κ, where

    P(r) = ∫ φ(u − r) Φ(u)^{K−1} du,   κ = (K·P(r) − 1)/(K − 1)          docs/method.md, Eq. (5.2)

(Duo, arXiv 2506.10892, Eq. 10).
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import CubicHermiteSpline
from scipy.special import log_ndtr

from pairflow.errors import SpecError

_STEP = 1 / 32  # of the trapezoid rule in u: its error falls exponentially, and is below rounding here
_REACH = 9.0  # φ beyond this is below 1e-18
_MAX_RATIO = 20.0  # beyond this 1 − κ is below 1e-30 for any K that memory holds
_NODES = 641
_BISECTIONS = 60


def win_probability(ratio: ArrayLike, vocab_size: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """P(r), the chance that x_1's own token is the argmax, and its derivative P'(r), by the trapezoid rule.

    Args:
        ratio: r = α̃/σ̃ ≥ 0, any shape.
        vocab_size: K.

    Returns:
        P, from 1/K at r = 0 towards 1, and P' ≥ 0, float64 of the same shape.
    """
    offsets = np.arange(-_REACH, _REACH + _STEP / 2, _STEP)
    weights = _STEP * np.exp(-(offsets**2) / 2) / np.sqrt(2 * np.pi)
    beats_all = np.exp((vocab_size - 1) * log_ndtr(np.asarray(ratio, np.float64)[..., None] + offsets))
    return beats_all @ weights, beats_all @ (offsets * weights)


class GaussianOperator:
    """κ as a function of α̃, and back, for one vocabulary: a table made once, and a cubic with its exact slopes.

    Args:
        vocab_size: K.
    """

    def __init__(self, vocab_size: int) -> None:
        if vocab_size < 2:
            raise SpecError(f"vocab_size: got {vocab_size}, expected at least 2 tokens")
        self.vocab_size = vocab_size
        ratios = np.linspace(0, _MAX_RATIO, _NODES)
        wins, slopes = win_probability(ratios, vocab_size)
        kappas = (vocab_size * wins - 1) / (vocab_size - 1)
        kappas[0], kappas[-1] = 0.0, 1.0
        kappas = np.maximum.accumulate(kappas.clip(0.0, 1.0))  # where 1 − κ is below rounding
        self._curve = CubicHermiteSpline(ratios, kappas, slopes.clip(0) * vocab_size / (vocab_size - 1))

    def kappa(self, alpha: ArrayLike) -> NDArray[np.float64]:
        """κ of α̃ = √(1 − σ̃²) in [0, 1]: 0 at 0, 1 at 1, increasing; float64 of the same shape.

        Raises:
            SpecError: an α̃ outside [0, 1].
        """
        alpha = _in_unit_interval("alpha", alpha)
        sigma = np.sqrt((1 - alpha) * (1 + alpha))
        with np.errstate(divide="ignore"):
            ratio = np.where(sigma > 0, alpha / np.where(sigma > 0, sigma, 1.0), np.inf)
        return self._of_ratio(ratio)

    def alpha(self, kappa: ArrayLike) -> NDArray[np.float64]:
        """The α̃ of a κ in [0, 1]: the inverse of `kappa`, by bisection of the interpolated table.

        Raises:
            SpecError: a κ outside [0, 1].
        """
        kappa = _in_unit_interval("kappa", kappa)
        low, high = np.zeros_like(kappa), np.full_like(kappa, _MAX_RATIO)
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            below = self._of_ratio(middle) < kappa
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        return np.where(kappa == 1, 1.0, high / np.hypot(1, high)) * (kappa > 0)

    def _of_ratio(self, ratio: NDArray[np.float64]) -> NDArray[np.float64]:
        return self._curve(np.minimum(ratio, _MAX_RATIO)).clip(0.0, 1.0)


def _in_unit_interval(name: str, values: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(values, np.float64)
    if not np.all((array >= 0) & (array <= 1)):
        raise SpecError(f"{name}: got {values!r}, expected values from 0 to 1")
    return array
