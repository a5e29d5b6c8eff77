"""The objective of discrete consistency distillation: two states of one trajectory, and a teacher for a student.

The loss is KL( p_teacher(· | x at u + gap) ‖ pθ(· | x at u) ): docs/method.md, Eq. (5.6).
"""

import copy
import math

import torch
from torch import nn

from pairflow.batches import Epochs, Stream, stratified_times, stream_seed
from pairflow.devices import autocast
from pairflow.distillation.operator import GaussianOperator
from pairflow.objectives import Network, Objective
from pairflow.spec import DistillationSpec


def gap(spec: DistillationSpec, step: int) -> float:
    """Distance between student and teacher at a step (from 0): min(1, 2^n/T) in round n, Eq. (5.5)."""
    return min(1.0, math.ldexp(1 / spec.num_intervals, min(1000, step // spec.update_teacher_every)))


class Consistency(Objective):
    """KL(teacher at the less noisy state ‖ student at the noisier one), in nats per token.

    The place on the trajectory is u in [0, 1), antithetic within a batch: γ̃ runs linearly from `gamma_noisiest` at
    u = 0 to `gamma_cleanest` at u = 1, and the teacher stands at u + gap, at most at 1. With
    α̃ = √sigmoid(−γ̃) and α̃/σ̃ = e^{−γ̃/2}, Eq. (5.4), the network is told the time t at which κ_t is the operator's κ
    (κ_t = t).

    Both states come from the same draws, so that a token that the noisier state kept is kept in the other too:

    - gaussian: x = argmax(α̃·onehot(x_1) + σ̃·ε), Eq. (5.1). Of the K normal draws only x_1's own, ε_own, and the
      largest of the others, ε_max, matter, with the place of the latter, which is uniform: x = x_1 where ε_max − ε_own
      < α̃/σ̃. So they are drawn by themselves, ε_max by its distribution function Φ^{K−1}, Eq. (5.3): exact, without K
      draws.
    - paired: x = x_1 where a uniform draw is below κ, else the stored source: the path that paired models are trained
      on, for a model that is to stay with its pairs.

    Args:
        spec: gap, rounds, range of noise.
        batches: targets, and sources for paired states.
        teacher: the first teacher; copied.
        vocab_size: K.
        device: of the networks.
        compiled: run the teacher through torch.compile.
    """

    def __init__(
        self,
        spec: DistillationSpec,
        batches: Epochs,
        teacher: nn.Module,
        vocab_size: int,
        device: torch.device,
        *,
        compiled: bool = False,
    ) -> None:
        self.spec, self.batches, self.vocab_size, self.device = spec, batches, vocab_size, device
        self.teacher = copy.deepcopy(teacher).to(device).eval().requires_grad_(False)
        self.modules = {"teacher": self.teacher}
        self.operator = GaussianOperator(vocab_size)
        self._ask_teacher = torch.compile(self.teacher) if compiled else self.teacher

    def begin(self, step: int, averaged: nn.Module) -> None:
        """At the start of every round but the first, the student's averaged weights become the teacher's."""
        if step and step % self.spec.update_teacher_every == 0:
            self.teacher.load_state_dict(averaged.state_dict())

    def draw(self, step: int, generator: torch.Generator) -> tuple[torch.Tensor, ...]:
        """(noisier state int64 [B, D], its t float32 [B], less noisy state, its t)."""
        target, source = self.batches.batch(step)
        times = torch.Generator().manual_seed(stream_seed(self.spec.seed, Stream.TIMES, step))
        u = stratified_times(len(target), 0.0, times).double()
        levels = [self._level(place) for place in (u, (u + gap(self.spec, step)).clamp_max(1.0))]
        if source is None:
            states = gaussian_states(target, [ratio for ratio, _ in levels], self.vocab_size, generator)
        else:
            draws = torch.rand(target.shape, generator=generator, device=generator.device)
            states = [torch.where(draws < t[:, None], target, source) for _, t in levels]
        return states[0], levels[0][1], states[1], levels[1][1]

    def _level(self, u: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(α̃/σ̃ float64, t float32) at places u, [B] each, on the device."""
        noisiest, cleanest = self.spec.gamma_noisiest, self.spec.gamma_cleanest
        gamma = noisiest + u * (cleanest - noisiest)
        t = torch.from_numpy(self.operator.kappa((-gamma).sigmoid().sqrt().numpy()))
        return (-gamma / 2).exp().to(self.device), t.float().to(self.device)

    def loss(self, network: Network, *rows: torch.Tensor) -> torch.Tensor:
        """The divergence at every position, float32 [b, D]."""
        noisier, t, cleaner, t_teacher = rows
        with torch.no_grad(), autocast(self.device):
            taught = self._ask_teacher(cleaner, t_teacher)
        taught = taught.float().log_softmax(dim=-1)
        said = network(noisier, t).float().log_softmax(dim=-1)
        return (taught.exp() * (taught - said)).sum(dim=-1)


def gaussian_states(
    target: torch.Tensor, ratios: list[torch.Tensor], vocab_size: int, generator: torch.Generator
) -> list[torch.Tensor]:
    """argmax(α̃·onehot(x_1) + σ̃·ε) at several ratios α̃/σ̃ with the same ε.

    Args:
        target: x_1, int64 [B, D].
        ratios: float64 [B] each.
        vocab_size: K.
        generator: on the tensors' device; the only randomness used.

    Returns:
        States, int64 [B, D], one for each ratio.
    """
    device = generator.device
    own = torch.randn(target.shape, dtype=torch.float64, generator=generator, device=device)
    uniform = torch.rand(target.shape, dtype=torch.float64, generator=generator, device=device)
    largest = torch.special.ndtri((uniform.log() / (vocab_size - 1)).exp())
    other = torch.randint(vocab_size - 1, target.shape, generator=generator, device=device)
    other += other >= target  # skips x_1's own token
    return [torch.where(largest - own < ratio[:, None], target, other) for ratio in ratios]
