"""The held-out loss: a bound on the negative log-likelihood, with noise that is the same at every call."""

import numpy as np
import torch
from torch import nn

from pairflow.batches import Stream, stratified_times, stream_seed, to_tensor
from pairflow.devices import autocast
from pairflow.processes import Process
from pairflow.spec import TrainingSpec

_MAX_ROWS = 2048
_BATCH_SIZE = 256


class Validator:
    """Measures the loss on held-out rows, always of the independent coupling of the model's process.

    Held-out rows have no stored source, and uniform sources make the figure the same bound (docs/method.md §6) for
    every coupling, so that models trained on different couplings can be compared.

    Args:
        rows: held-out targets, integers [V, D]; the first 2,048 are used.
        spec: gives the seed and the range of times.
        device: where to compute.
    """

    def __init__(self, rows: np.ndarray, spec: TrainingSpec, device: torch.device) -> None:
        self._rows = to_tensor(rows[:_MAX_ROWS], device)
        self._spec = spec
        self._device = device

    @torch.no_grad()
    def nll(self, model: nn.Module, process: Process) -> float:
        """Mean over rows, positions and stratified times, in nats per token."""
        seed = stream_seed(self._spec.seed, Stream.VALIDATION)
        generator = torch.Generator(self._device).manual_seed(seed)
        total = 0.0
        for target in self._rows.long().split(_BATCH_SIZE):
            t = stratified_times(len(target), self._spec.time_epsilon, generator)
            source = process.draw_source((target.shape[0], target.shape[1]), generator)
            x_t = process.corrupt(source, target, t, generator)
            with autocast(self._device):
                logits = model(x_t, process.network_time(t))
            total += process.loss(logits, x_t, target, t).double().sum().item()
        return total / self._rows.numel()
