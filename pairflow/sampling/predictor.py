"""The network as a sampler sees it: asked at times that it was trained on, and not asked again for nothing."""

import torch
from torch import nn

from pairflow.devices import autocast
from pairflow.errors import SpecError
from pairflow.processes import Process

TIME_EPSILON = 1e-3  # the network is asked about times in [ε, 1 − ε], where it was trained by default (TrainingSpec)


def inside(time: float) -> float:
    """The time that the network is told for one in [0, 1]."""
    return min(max(time, TIME_EPSILON), 1 - TIME_EPSILON)


class Predictor:
    """Logits of pθ(x_1 | x_t) for one batch of samples, and the number of network calls that they cost.

    For a time-free process (MDLM) the answer for a row holds until one of its tokens changes, and a row without masks
    needs none: only the other rows are computed, so a sample costs at most min(T, D) calls. That is the cache of
    MDLM's sampler (arXiv 2406.07524, §4.2), kept for every row by itself.

    Attributes:
        calls: network evaluations so far, one for each row that was computed.
    """

    def __init__(self, model: nn.Module, process: Process) -> None:
        self.calls = 0
        self._model, self._process = model, process
        self._logits: torch.Tensor | None = None
        self._answered: torch.Tensor | None = None

    def logits(self, x_t: torch.Tensor, time: float) -> torch.Tensor:
        """[B, D, K] for x_t int64 [B, D], the rows of which must stay the same samples from call to call.

        Raises:
            SpecError: the network's answer is not finite.
        """
        if not self._process.time_free:
            return self._compute(x_t, time)
        if self._logits is None or self._answered is None:
            self._logits = self._compute(x_t, time)
        else:
            stale = (x_t != self._answered).any(dim=1) & self._process.undetermined(x_t).any(dim=1)
            if bool(stale.any()):
                self._logits[stale] = self._compute(x_t[stale], time)
        self._answered = x_t.clone()
        return self._logits

    def _compute(self, x_t: torch.Tensor, time: float) -> torch.Tensor:
        self.calls += len(x_t)
        t = torch.full((len(x_t),), inside(time), device=x_t.device)
        with autocast(x_t.device):
            logits: torch.Tensor = self._model(x_t, self._process.network_time(t))
        # The sum is the cheapest look at them all, and not finite either where a model rules tokens out by −∞.
        if not bool(logits.sum().isfinite()) and not bool(logits.amax(dim=-1).isfinite().all()):
            raise SpecError(
                f"model: got logits that are not finite at t = {inside(time):.3g}, expected numbers; its weights may "
                "not be finite: load another checkpoint, or train it again"
            )
        return logits
