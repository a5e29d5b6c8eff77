"""Few-step sampling: steps over a uniform grid, then an ancestral or a greedy end (docs/method.md §4).

`ancestral` steps are Eq. (4.1), `euler` Eq. (4.2), `psi` Eq. (4.3); a greedy end is x^i ← argmax_a π^i(a | x_t) at
t = 1, Eq. (4.4), for all positions at once; an argmax end takes the place of the last step, Eq. (4.6).

`SAMPLERS` is the registry of step rules and `sample` its dispatcher. Every draw is keyed by (seed, sample, step,
position), so a sample does not depend on the batch it is drawn in. The one caveat: a network's forward pass may round
differently for another batch size or device, and a draw that falls within such a rounding of a boundary then picks
another token.

May import processes, `devices`, `rng`, `integers`, `spec` and `errors` of the library: a model is whatever answers with
logits.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from pairflow.devices import resolve_device
from pairflow.errors import SpecError
from pairflow.integers import check_integer
from pairflow.processes import Process
from pairflow.rng import uniform_draws
from pairflow.sampling.draws import draw_categorical, nucleus
from pairflow.sampling.paths import Paths
from pairflow.sampling.predictor import Predictor, inside
from pairflow.spec import FinalStep, SamplingSpec

# (process, pθ [B, D, K], x_t [B, D], t [B], s [B], corrections a step) -> probabilities of x_s [B, D, num_states]
StepRule = Callable[[Process, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, float], torch.Tensor]
# Told (sample ids [B], step, x_t int64 [B, D]) of every batch: at step 0 its sources, at T the states after all steps,
# at T + 1 those after a greedy end.
Observer = Callable[[np.ndarray, int, torch.Tensor], object]

MAX_STEPS = 1024
_MAX_CELLS = 2**23  # float64 probabilities held at once for the draws: 64 MiB

SAMPLERS: dict[str, StepRule] = {
    "ancestral": lambda process, probs, x_t, t, s, _: process.posterior(probs, x_t, t, s),
    "euler": lambda process, probs, x_t, t, s, _: process.euler(probs, x_t, t, s),
    "psi": lambda process, probs, x_t, t, s, rate: process.corrected(probs, x_t, t, s, min(1.0, rate)),
}


@dataclass(frozen=True)
class Samples:
    """What was drawn, and what it cost.

    Attributes:
        tokens: [N, D], in the smallest unsigned dtype that holds K − 1.
        network_calls: network evaluations (NFE) a sample, on average; fewer than steps where a cache answered.
    """

    tokens: np.ndarray
    network_calls: float


def network_calls(num_steps: int, final_step: FinalStep) -> int:
    """Network calls (NFE) that one sample costs at most: a greedy end is one more than the number of steps.

    So the least is one call: a greedy end without steps, or one step that is an argmax end.
    """
    return num_steps + (final_step == "greedy")


@torch.no_grad()
def sample(
    model: nn.Module,
    process: Process,
    spec: SamplingSpec | None = None,
    *,
    num_samples: int,
    num_steps: int,
    length: int,
    seed: int = 0,
    start: int = 0,
    batch_size: int = 256,
    device: str | torch.device = "auto",
    progress: bool = True,
    observer: Observer | None = None,
) -> Samples:
    """Draws samples `start` … `start` + N − 1 of a seed from a trained denoiser.

    `num_steps` steps of the spec's sampler lead from a source at t = 0 to t = 1 over the grid 0, 1/T, …, 1. A greedy
    end then replaces every token that x_t leaves open by the argmax of pθ given the result, which removes what
    factorised draws left inconsistent. The absorbing process leaves none open: an ancestral and a greedy end are the
    same there, and cost the same. Without steps (T = 0) a greedy end is taken at the source: one network call in all.
    An argmax end makes the last step, from t = 1 − 1/T, the argmax of p_{1|t}: T calls, of one step the same one call.

    Args:
        model: x_t int64 [B, D], t float [B] -> logits [B, D, K]; used in evaluation mode and left as it was.
        process: that the model was trained on, such as `LoadedModel.process`.
        spec: sampler, end, nucleus; the default is ancestral steps and a greedy end.
        num_samples: N.
        num_steps: T, 1 to 1,024; 0 for a greedy end alone.
        length: D.
        seed: of all draws, sources included.
        start: number of the first sample; slices of one seed fit together.
        batch_size: samples at a time; only speed and memory depend on it.
        device: 'auto', 'cpu', 'cuda', …; the model is moved there.
        progress: show a progress bar.
        observer: is shown every state on the way, such as `Paths`; it changes no draw.

    Raises:
        SpecError: a number out of its range, a length that is not the model's, or logits that are not finite.
    """
    spec = SamplingSpec() if spec is None else spec
    num_samples = check_integer(num_samples, "num_samples", 1)
    num_steps = check_integer(num_steps, "num_steps", 0 if spec.final_step == "greedy" else 1)
    length = check_integer(length, "length", 1)
    seed = check_integer(seed, "seed", 0, 2**63 - 1)  # as a spec's
    batch_size = check_integer(batch_size, "batch_size", 1)
    if num_steps > MAX_STEPS:
        raise SpecError(f"num_steps: got {num_steps}, expected at most {MAX_STEPS}")
    start = check_integer(start, "start", 0)
    if isinstance(own := getattr(model, "length", None), int) and own != length:
        raise SpecError(f"length: got {length}, expected {own}, the tokens a row that the model was made for")
    place = resolve_device(device)
    model = model.to(place)
    tokens = np.empty((num_samples, length), np.min_scalar_type(process.vocab_size - 1))
    calls = 0
    total = num_steps * num_samples
    bar = tqdm(total=total, desc=f"sample, {num_steps} steps", unit="step", disable=not progress)
    with _evaluating(model), bar:
        for first in range(0, num_samples, batch_size):
            rows = np.arange(first, min(first + batch_size, num_samples))
            predictor = Predictor(model, process)
            sample_ids = rows + start
            x_t = torch.from_numpy(process.keyed_source(seed, sample_ids, length)).to(place)
            if observer is not None:
                observer(sample_ids, 0, x_t)
            for step in range(num_steps):
                draws = torch.from_numpy(uniform_draws(seed, sample_ids, step, length)).to(place)
                logits = predictor.logits(x_t, step / num_steps)
                x_t = _step(process, spec, logits, x_t, step, num_steps, draws)
                bar.update(len(rows))
                if observer is not None:
                    observer(sample_ids, step + 1, x_t)
            if spec.final_step == "greedy":
                if bool((open_ := process.undetermined(x_t)).any()):
                    time = 1.0 if num_steps else 0.0
                    x_t = torch.where(open_, _greedy(process, predictor.logits(x_t, time), x_t, time), x_t)
                if observer is not None:
                    observer(sample_ids, num_steps + 1, x_t)
            tokens[rows] = x_t.cpu().numpy()
            calls += predictor.calls
    return Samples(tokens, calls / num_samples)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """A network in evaluation mode; every module of it is left in its own, whatever happens."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def _step(
    process: Process,
    spec: SamplingSpec,
    logits: torch.Tensor,
    x_t: torch.Tensor,
    step: int,
    num_steps: int,
    draws: torch.Tensor,
) -> torch.Tensor:
    """x_s [B, D] from x_t by the uniform `draws` in [0, 1), float64 [B, D]; a few rows at a time, for memory."""
    B, D, K = logits.shape
    rule = SAMPLERS[spec.sampler]
    rows = max(1, _MAX_CELLS // (D * K))
    parts = []
    for part in (slice(first, first + rows) for first in range(0, B, rows)):
        t, s = (draws.new_full((len(x_t[part]),), time / num_steps) for time in (step, step + 1))
        probs = logits[part].double().softmax(dim=-1)
        if spec.final_step == "argmax" and step == num_steps - 1:
            parts.append(process.denoiser(probs, x_t[part], t).argmax(dim=-1))
            continue
        probs = nucleus(probs, spec.top_p)
        chances = rule(process, probs, x_t[part], t, s, (spec.corrections or 0.0) / num_steps)
        parts.append(draw_categorical(chances, draws[part]))
    return torch.cat(parts)


def _greedy(process: Process, logits: torch.Tensor, x_t: torch.Tensor, time: float) -> torch.Tensor:
    """The likeliest token at every position given the others, int64 [B, D]; at t = 0 the own one is no evidence."""
    if process.predicts == "others" or time == 0:
        return logits.argmax(dim=-1)
    t = torch.full((len(x_t),), inside(time), dtype=torch.float64, device=x_t.device)
    return process.others(logits.double().softmax(dim=-1), x_t, t).argmax(dim=-1)


__all__ = ["SAMPLERS", "Observer", "Paths", "Samples", "draw_categorical", "network_calls", "nucleus", "sample"]
