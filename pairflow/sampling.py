"""Few-step sampling: ancestral steps over a uniform grid, then an ancestral or a greedy end (method.md §4).

Every draw is keyed by (seed, sample, step, position), so a sample does not depend on the batch it is drawn
in. The one caveat: a network's forward pass may round differently for another batch size or device, and a
draw that falls within such a rounding of a boundary then picks another token.
"""

from typing import Literal

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from pairflow.devices import autocast, resolve_device
from pairflow.errors import SpecError
from pairflow.processes import UniformProcess
from pairflow.rng import uniform_draws, uniform_tokens

FinalStep = Literal["ancestral", "greedy"]

TIME_EPSILON = 1e-3  # the network is asked about times in [ε, 1 − ε], where it was trained (TrainingSpec.time_epsilon)
_MAX_CELLS = 2**23  # float64 probabilities held at once for the draws: 64 MiB


def network_calls(num_steps: int, final_step: FinalStep) -> int:
    """Network calls (NFE) that one sample costs: a greedy end is one more than the number of steps."""
    return num_steps + (final_step == "greedy")


@torch.no_grad()
def sample(
    model: nn.Module,
    *,
    num_samples: int,
    num_steps: int,
    final_step: FinalStep = "greedy",
    seed: int = 0,
    vocab_size: int,
    length: int,
    batch_size: int = 256,
    device: str | torch.device = "auto",
    progress: bool = True,
) -> np.ndarray:
    """Draws samples 0 … N−1 of a seed from a trained denoiser.

    `num_steps` ancestral steps lead from a uniform source at t = 0 to t = 1 over the grid 0, 1/T, …, 1, each
    from the exact posterior of the uniform process with p_θ in place of x_1. A greedy end then replaces every
    token by the argmax of p_θ given the result, which removes what factorised draws left inconsistent.

    Args:
        model: x_t int64 [B, D], t float [B] -> logits [B, D, K]; used in evaluation mode and left as it was.
        num_samples: N.
        num_steps: T, from 1.
        final_step: 'ancestral' ends with the last step; 'greedy' adds the argmax (one more network call).
        seed: of all draws, sources included.
        vocab_size: K.
        length: D.
        batch_size: samples at a time; only speed and memory depend on it.
        device: 'auto', 'cpu', 'cuda', …; the model is moved there.
        progress: show a progress bar.

    Returns:
        Tokens [N, D], in the smallest unsigned dtype that holds K − 1.

    Raises:
        SpecError: a number below 1, or an unknown final step.
    """
    for name, value in (("num_samples", num_samples), ("num_steps", num_steps), ("batch_size", batch_size)):
        if value < 1:
            raise SpecError(f"{name}: got {value}, expected at least 1")
    if final_step not in ("ancestral", "greedy"):
        raise SpecError(f"final_step: got {final_step!r}, expected 'ancestral' or 'greedy'")
    place = resolve_device(device)
    was_training = model.training
    model = model.to(place).eval()
    process = UniformProcess(vocab_size)
    result = np.empty((num_samples, length), np.min_scalar_type(vocab_size - 1))
    total = network_calls(num_steps, final_step) * num_samples
    with tqdm(total=total, desc=f"sample, {num_steps} steps", unit="call", disable=not progress) as bar:
        for start in range(0, num_samples, batch_size):
            sample_ids = np.arange(start, min(start + batch_size, num_samples))
            x_t = torch.from_numpy(uniform_tokens(seed, sample_ids, length, vocab_size)).to(place)
            for step in range(num_steps):
                draws = torch.from_numpy(uniform_draws(seed, sample_ids, step, length)).to(place)
                logits = _predict(model, x_t, step / num_steps)
                x_t = _reverse_step(process, logits, x_t, step / num_steps, (step + 1) / num_steps, draws)
                bar.update(len(sample_ids))
            if final_step == "greedy":
                x_t = _predict(model, x_t, 1.0).argmax(dim=-1)
                bar.update(len(sample_ids))
            result[sample_ids] = x_t.cpu().numpy()
    model.train(was_training)
    return result


def _predict(model: nn.Module, x_t: torch.Tensor, time: float) -> torch.Tensor:
    """Logits [B, D, K] at a time, moved into the range of times that the network was trained on."""
    inside = min(max(time, TIME_EPSILON), 1 - TIME_EPSILON)
    with autocast(x_t.device):
        return model(x_t, torch.full((len(x_t),), inside, device=x_t.device))


def _reverse_step(
    process: UniformProcess,
    logits: torch.Tensor,
    x_t: torch.Tensor,
    t: float,
    s: float,
    draws: torch.Tensor,
) -> torch.Tensor:
    """x_s [B, D] from x_t by the uniform `draws` in [0, 1), float64 [B, D]; a few rows at a time, for memory."""
    B, D, K = logits.shape
    rows = max(1, _MAX_CELLS // (D * K))
    parts = []
    for part in (slice(start, start + rows) for start in range(0, B, rows)):
        here, ahead = (draws.new_full((len(x_t[part]),), time) for time in (t, s))
        posterior = process.posterior(logits[part].double().softmax(dim=-1), x_t[part], here, ahead)
        parts.append(draw_categorical(posterior, draws[part]))
    return torch.cat(parts)


def draw_categorical(probs: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
    """Inverse-CDF draws: the first token whose cumulative probability exceeds u; one of probability 0 never
    is.

    Args:
        probs: float64 [B, D, K], need not sum to exactly one.
        draws: u in [0, 1), float64 [B, D].

    Returns:
        int64 [B, D].
    """
    cumulative = probs.cumsum(dim=-1)
    level = draws[..., None] * cumulative[..., -1:]
    tokens = torch.searchsorted(cumulative, level, right=True).squeeze(-1)
    return tokens.clamp_max(probs.shape[-1] - 1)
