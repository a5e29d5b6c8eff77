"""A guard against losses that are not finite, and against those that leap and stay up."""

import math
from collections import deque
from statistics import median

_WINDOW = 100
_MIN_HISTORY = 50
_RECENT = 3


class SpikeGuard:
    """Compares the median of the last 3 losses with that of the up to 100 before them.

    A spike is more than `factor` times that, and worse than `floor`: a loss that is nearly zero may well grow tenfold
    by chance, but not beyond what a network that knows nothing has. Medians, so that one odd batch is no spike, and two
    of three are. The history is kept for a session: a resumed run builds it up anew.

    Args:
        factor: None switches the guard off, except for losses that are not finite.
        floor: losses up to this are never a spike, nats per token.
        first_step: steps up to this, from 1, are neither judged nor remembered.
    """

    def __init__(self, factor: float | None, *, floor: float, first_step: int) -> None:
        self.factor, self.floor, self.first_step = factor, floor, first_step
        self._history: deque[float] = deque(maxlen=_WINDOW)
        self._recent: deque[float] = deque(maxlen=_RECENT)

    def fault(self, step: int, loss: float, grad_norm: float) -> str | None:
        """What is wrong with a step, or None."""
        if not (math.isfinite(loss) and math.isfinite(grad_norm)):
            return f"training diverged at step {step}: loss {loss}, gradient norm {grad_norm}"
        if self.factor is None or step <= self.first_step:
            return None
        if len(self._recent) == _RECENT:
            self._history.append(self._recent[0])
        self._recent.append(loss)
        if len(self._history) < _MIN_HISTORY:
            return None
        usual, now = median(self._history), median(self._recent)
        if now <= self.factor * usual or now <= self.floor:
            return None
        return f"the loss leapt at step {step}: to {now:.4g} nats per token, from a running median of {usual:.4g}"
