"""Rectified discrete flow (ReDi, arXiv 2507.15897; docs/method.md §5): pairs that a trained model makes itself.

Sources are drawn, and the model samples a target from each: x_0 ~ uniform, x_1 = sample_θ(x_0), Eq. (5.7). To fine-tune
on the pairs is `fit(..., source=pairs.source, target=pairs.target, initial=checkpoint)`: the training loss, on another
coupling.
"""

from dataclasses import dataclass

import numpy as np
import torch

from pairflow.checkpoint import LoadedModel
from pairflow.errors import SpecError
from pairflow.sampling import sample
from pairflow.spec import RediSpec

_FIRST = 1 << 40
"""Number of the sample that is pair 0. Samples are numbered from 0: those of the same seed that a model is judged by
must not start where it was trained to."""


@dataclass(frozen=True)
class ModelPairs:
    """Sources, and the targets that a model sampled from them.

    Attributes:
        source: [N, D], in the smallest unsigned dtype that holds K − 1.
        target: the same shape and dtype.
        network_calls: network evaluations a pair.
    """

    source: np.ndarray
    target: np.ndarray
    network_calls: float


def draw_pairs(
    loaded: LoadedModel,
    spec: RediSpec,
    *,
    start: int = 0,
    stop: int | None = None,
    batch_size: int = 256,
    device: str | torch.device = "auto",
    progress: bool = True,
) -> ModelPairs:
    """Pairs `start` … `stop` − 1 of a model. Pair i depends on the seed and on i, so shards can be made anywhere.

    (Up to the rounding of a network that is asked in other batches or on other devices: see `pairflow.sampling`.)

    Args:
        loaded: the model, of the uniform process.
        spec: how many pairs there are, and how they are sampled.
        start: number of the first pair, from 0.
        stop: number after the last pair; all by default.
        batch_size: pairs at a time; only speed and memory depend on it.
        device: 'auto', 'cpu', 'cuda', ….
        progress: show a progress bar.

    Raises:
        SpecError: a slice that is empty or not within the spec's pairs, or a model of another process.
    """
    stop = spec.num_pairs if stop is None else stop
    if not 0 <= start < stop <= spec.num_pairs:
        raise SpecError(f"pairs: got the slice [{start}, {stop}), expected one within [0, {spec.num_pairs})")
    if loaded.process.name != "uniform":
        raise SpecError(
            f"redi: the model at {loaded.path} is of process '{loaded.process.name}'"
            + (
                ", whose sources are all alike, so there is nothing to pair"
                if loaded.process.name == "absorbing"
                else ""
            )
            + "; use a model of process 'uniform'"
        )
    drawn = sample(
        loaded.model,
        loaded.process,
        spec.sampling,
        num_samples=stop - start,
        num_steps=spec.num_steps,
        length=loaded.length,
        seed=spec.seed,
        start=_FIRST + start,
        batch_size=batch_size,
        device=device,
        progress=progress,
    )
    source = loaded.process.keyed_source(spec.seed, _FIRST + np.arange(start, stop), loaded.length)
    return ModelPairs(source.astype(drawn.tokens.dtype), drawn.tokens, drawn.network_calls)
