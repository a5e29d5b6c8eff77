"""What an engine hands back."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Coupled:
    """Sources of a batch of targets.

    Attributes:
        source: [B, D], the dtype of the targets.
        num_scans: [B] int64, at how many of the T steps the support had to be looked at.
    """

    source: NDArray[Any]
    num_scans: NDArray[np.int64]
