"""torch's Adam and AdamW as they are, without what torch puts around their methods to keep torch.compile away.

That loads the compiler, torch._dynamo, with the first of them: 1.3 s of a core for every process that trains. No step
of ours is compiled together with its optimiser, only networks are.
"""

import inspect

import torch
from torch.optim import Optimizer

_step = inspect.unwrap(torch.optim.Adam.step)


class Adam(torch.optim.Adam):
    """torch.optim.Adam."""

    add_param_group = inspect.unwrap(Optimizer.add_param_group)
    zero_grad = inspect.unwrap(Optimizer.zero_grad)

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """One step; no closure is taken."""
        _step(self)


class AdamW(Adam, torch.optim.AdamW):
    """torch.optim.AdamW."""
