"""Changes to the training that were tried alone, by gpu_study.py; docs/results.md has what came of them.

None helped beyond chance, so none is in the library.
"""

from collections.abc import Callable
from typing import Any

import torch

from pairflow.batches import stratified_times
from pairflow.objectives import Denoising
from pairflow.schedule import kappa


class _Warped(Denoising):
    """Times drawn otherwise than uniformly: `warp` is a monotone map of [0, 1] onto itself."""

    warp: Callable[[torch.Tensor], torch.Tensor] = staticmethod(lambda t: t)

    def draw(self, step: int, generator: torch.Generator) -> tuple[torch.Tensor, ...]:
        target, source = self.batches.batch(step)
        t = stratified_times(len(target), self.time_epsilon, generator)
        t = self.warp(t).clamp(self.time_epsilon, 1 - self.time_epsilon)
        if source is None:
            source = self.process.draw_source((target.shape[0], target.shape[1]), generator)
        return self.process.corrupt(source, target, t, generator), target, t


class _Shared(Denoising):
    """A share of the rows with an independent source instead of the stored one."""

    share = 0.0

    def draw(self, step: int, generator: torch.Generator) -> tuple[torch.Tensor, ...]:
        target, source = self.batches.batch(step)
        t = stratified_times(len(target), self.time_epsilon, generator)
        drawn = self.process.draw_source((target.shape[0], target.shape[1]), generator)
        if source is None:
            source = drawn
        else:
            fresh = torch.rand(len(target), generator=generator, device=generator.device) < self.share
            source = torch.where(fresh[:, None], drawn, source)
        return self.process.corrupt(source, target, t, generator), target, t


class _NearNoise(Denoising):
    """Cross-entropy that weighs up to three times as much near t = 0."""

    def loss(self, network: Any, *rows: torch.Tensor) -> torch.Tensor:
        return (1 + 2 * (1 - kappa(rows[2].float())[:, None])) * super().loss(network, *rows)


class _Consistent(Denoising):
    """Two nested states of a pair's path: the averaged weights at the cleaner one teach the noisier one, too."""

    averaged: Any = None

    def begin(self, step: int, averaged: torch.nn.Module) -> None:
        self.averaged = averaged

    def draw(self, step: int, generator: torch.Generator) -> tuple[torch.Tensor, ...]:
        target, source = self.batches.batch(step)
        t = stratified_times(len(target), self.time_epsilon, generator)
        gap = torch.rand(len(target), generator=generator, device=generator.device)
        s = t + (1 - self.time_epsilon - t) * gap
        if source is None:
            source = self.process.draw_source((target.shape[0], target.shape[1]), generator)
        draws = torch.rand(target.shape, generator=generator, device=generator.device)
        x_t = torch.where(draws < kappa(t)[:, None], target, source)
        x_s = torch.where(draws < kappa(s)[:, None], target, source)
        return x_t, target, t, x_s, s

    def loss(self, network: Any, *rows: torch.Tensor) -> torch.Tensor:
        x_t, target, t, x_s, s = rows
        logits = network(x_t, self.process.network_time(t))
        own = self.process.cross_entropy(logits, x_t, target, t)
        with torch.no_grad(), torch.autocast(x_t.device.type, torch.bfloat16, enabled=x_t.is_cuda):
            teacher = self.averaged(x_s, self.process.network_time(s))
        taught = teacher.float().log_softmax(-1)
        divergence = (taught.exp() * (taught - logits.float().log_softmax(-1))).sum(-1)
        return own + divergence


def _of(kind: type[Denoising], **attributes: Any) -> type[Denoising]:
    return type(kind.__name__, (kind,), attributes)


VARIANTS: dict[str, type[Denoising]] = {
    "times-u": _of(_Warped, warp=staticmethod(lambda t: torch.sin(t * torch.pi / 2) ** 2)),
    "times-noise": _of(_Warped, warp=staticmethod(lambda t: t**2)),
    "share-10": _of(_Shared, share=0.1),
    "share-30": _of(_Shared, share=0.3),
    "near-noise": _NearNoise,
    "consistent": _Consistent,
}
