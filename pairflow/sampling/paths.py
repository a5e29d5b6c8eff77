"""What lies between source and sample: how often tokens change on the way, and the states of a few samples."""

import numpy as np
import torch


class Paths:
    """An observer for `sample` that follows the paths from source to sample.

    On a straight path a token changes at most once, from the source's to the sample's, as it does on the path that a
    pair is trained with. So straightness is the Hamming distance of a path's two ends over the number of token changes
    along it, Eq. (6.5): the fraction of changes that were not made in vain. It is the discrete counterpart of the
    straightness of rectified flow (arXiv 2209.03003, §2.2), where a path is as long as the distance of its ends if and
    only if it is straight; here length counts changes, and distance is Hamming's.

    Args:
        kept: of how many of the first samples to keep all states.

    Attributes:
        num_samples: samples that were followed.
        changes: token changes on all paths, over steps and a greedy end.
        states: x_0 of the first samples, then their states after each step and after a greedy end, int32
            [`kept`, D] each.
    """

    def __init__(self, kept: int = 0) -> None:
        self.num_samples = 0
        self.changes = 0
        self.states: list[np.ndarray] = []
        self._kept = kept
        self._finished = 0
        self._source: torch.Tensor | None = None
        self._last: torch.Tensor | None = None

    def __call__(self, sample_ids: np.ndarray, step: int, x_t: torch.Tensor) -> None:
        """Takes down the states of a batch, int64 [B, D]; step 0 is its sources."""
        if step == 0 or self._last is None:
            self._finished = self.hamming
            self._source = x_t
            self.num_samples += len(sample_ids)
        else:
            self.changes += int((x_t != self._last).sum())
        self._last = x_t
        if self.num_samples == len(sample_ids):  # the first batch
            self.states.append(x_t[: self._kept].to(torch.int32).cpu().numpy())

    @property
    def hamming(self) -> int:
        """Hamming distance of sources and samples, summed over all paths."""
        if self._source is None or self._last is None:
            return 0
        return self._finished + int((self._source != self._last).sum())

    @property
    def mean_hamming(self) -> float:
        """Tokens of a sample that differ from its source's, on average."""
        return self.hamming / self.num_samples

    @property
    def straightness(self) -> float | None:
        """Above 0 to 1, where every path is straight; None where no token ever changed."""
        return self.hamming / self.changes if self.changes else None
