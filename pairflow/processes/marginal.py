"""The marginal process: noise replaces a token by a draw of the data's own marginals (docs/method.md §7; ours).

Bound, posterior and conversions are those of uniform noise with π_i(a) in place of 1/K; with π = 1/K they are the same.
"""

import numpy as np
import torch

from pairflow.errors import SpecError
from pairflow.marginals import cumulated, tokens_of
from pairflow.processes.base import Prediction
from pairflow.processes.uniform import UniformProcess
from pairflow.rng import Purpose, draw_pairs
from pairflow.schedule import d_kappa, kappa


class MarginalProcess(UniformProcess):
    """x_t^i = x_1^i with probability κ_t, else a draw of π_i: q_t(a|b) = κ_t·1[a = b] + (1−κ_t)·π_i(a), Eq. (7.6)."""

    name = "marginal"
    of_the_data = True

    def __init__(self, vocab_size: int, predicts: Prediction = "others", marginal: torch.Tensor | None = None) -> None:
        """`marginal` is π, float64 [D, K]: positive, each row summing to 1."""
        super().__init__(vocab_size, predicts)
        if marginal is None:
            raise SpecError("process 'marginal': got no marginals, which it has from the data that it is trained on")
        sums = marginal.sum(-1) if marginal.ndim == 2 else marginal
        if marginal.shape != (len(marginal), vocab_size) or not bool((marginal > 0).all()):
            raise SpecError(
                f"process 'marginal': got marginals of shape {list(marginal.shape)}, expected [D, {vocab_size}], all "
                "positive"
            )
        if not torch.allclose(sums, torch.ones_like(sums)):
            raise SpecError("process 'marginal': got marginals that do not sum to 1 at each position")
        self.tensors = {"marginal": marginal.double()}
        self._sums = cumulated(marginal.double().cpu().numpy())
        self._placed = (self.tensors["marginal"], torch.from_numpy(self._sums))

    def draw_source(self, shape: tuple[int, int], generator: torch.Generator) -> torch.Tensor:
        """Source points x_0 of the marginals: int64 [B, D], on the generator's device."""
        self._check_length(shape[1])
        draws = torch.rand(shape, generator=generator, device=generator.device, dtype=torch.float64)
        sums = self._on(draws.device)[1]
        return torch.searchsorted(sums, draws.T.contiguous(), right=True).T.contiguous()

    def keyed_source(self, seed: int, sample_ids: np.ndarray, length: int) -> np.ndarray:
        """Source points of the marginals, each a pure function of (seed, sample): int64 [B, D]."""
        self._check_length(length)
        return tokens_of(draw_pairs(seed, sample_ids, 0, length, Purpose.SOURCE)[0], self._sums)

    def loss(self, logits: torch.Tensor, x_t: torch.Tensor, target: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """Continuous-time negative ELBO for noise π, per token.

        With c_a = κ/((1−κ)·π_a), x̄_a = (1−κ)·π_a·(1 + c_a·1[a = x_1]) and x̄θ_a the same with pθ, π_z·κ̇/κ times the
        relative entropy of the rates x̄_a/x̄_z, arranged as in `UniformProcess.loss`:

            L_a = log(1 + c_a·pθ_a),  gap = log(1 + c_{x_1}) − L_{x_1},  rest = Σ_{a ≠ x_1} π_a·L_a,  X = x̄_{x_1}
            z ≠ x_1:  κ̇/κ · [ (e^{−L_z} − 1 + L_z + X·gap) / (1−κ) − rest ]
            z = x_1:  π_z·κ̇/κ · [ (e^{gap} − 1 − gap − (1−κ)·rest) / X + gap ]              Eq. (7.7)

        Args and returns are those of `UniformProcess.loss`.
        """
        if self.predicts == "all":
            logits = self._weighed(logits, x_t, t, -1)
        marginal = self._on(x_t.device)[0].float()
        kappa_t = kappa(t.float())[:, None]
        noise = 1 - kappa_t
        odds = kappa_t[..., None] / (noise[..., None] * marginal)  # c
        scaled = odds * logits.float().softmax(dim=-1)
        both = torch.stack([target, x_t], dim=-1)
        share_target, share_here = marginal.expand_as(scaled).gather(-1, both).unbind(-1)
        scaled_target, scaled_here = scaled.gather(-1, both).unbind(-1)
        log_target, log_here = scaled_target.log1p(), scaled_here.log1p()
        odds_target = odds.gather(-1, target[..., None]).squeeze(-1)
        gap = ((odds_target - scaled_target) / (1 + scaled_target)).log1p()
        rest = (scaled.log1p() * marginal).sum(dim=-1) - share_target * log_target
        whole = kappa_t + noise * share_target  # X

        moved = ((-log_here).expm1() + log_here + whole * gap) / noise - rest
        kept = share_here * ((gap.expm1() - gap - noise * rest) / whole + gap)
        rate = d_kappa(t.float())[:, None] / kappa_t
        return rate * torch.where(x_t == target, kept, moved)

    def posterior(self, probs: torch.Tensor, x_t: torch.Tensor, t: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        """Ancestral reverse step from t to s > t: Eq. (4.1) with π in place of 1/K.

        q(x_s | x_t, x_1) ∝ [ρ·1[x_s = x_t] + (1−ρ)·π(x_t)] · [κ_s·x_1(x_s) + (1−κ_s)·π(x_s)] with ρ = κ_t/κ_s.
        Args and returns are those of `UniformProcess.posterior`.
        """
        probs = self.others(probs, x_t, t)
        kappa_t = kappa(t.to(probs.dtype))[:, None, None]
        kappa_s = kappa(s.to(probs.dtype))[:, None, None]
        stay, here = kappa_t / kappa_s, x_t[..., None]
        before = kappa_s * probs + (1 - kappa_s) * self.noise(probs)
        joint = before * ((1 - stay) * self._at(x_t).to(probs.dtype))
        joint.scatter_add_(-1, here, stay * before.gather(-1, here))
        return joint / joint.sum(dim=-1, keepdim=True)

    def denoiser(self, probs: torch.Tensor, x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """p_{1|t} from a network's prediction, Eq. (3.5) with the odds 1 + κ_t/((1−κ_t)·π(x_t)) of Eq. (7.8)."""
        if self.predicts == "all":
            return probs
        odds = self._odds(x_t, t.to(probs.dtype))
        here = probs.gather(-1, x_t[..., None])
        return probs.scatter_add(-1, x_t[..., None], odds * here) / (1 + odds * here)

    def others(self, probs: torch.Tensor, x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """The law of a token given the other positions, the inverse of `denoiser`: Eq. (3.8) with Eq. (7.8)'s odds."""
        if self.predicts == "others":
            return probs
        here = x_t[..., None]
        joint = ((1 + self._odds(x_t, t.to(probs.dtype))) * probs).scatter(-1, here, probs.gather(-1, here))
        return joint / joint.sum(dim=-1, keepdim=True)

    def noise(self, like: torch.Tensor) -> torch.Tensor:
        """π: [D, K]."""
        return self._on(like.device)[0].to(like.dtype)

    def _weighed(self, logits: torch.Tensor, x_t: torch.Tensor, t: torch.Tensor, sign: int) -> torch.Tensor:
        evidence = sign * self._odds(x_t, t.float()).log1p()
        return logits.float().scatter_add(-1, x_t[..., None], evidence.float())

    def _odds(self, x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """q_t(x_t | x_t) / q_t(x_t | another) − 1, [B, D, 1]."""
        kappa_t = kappa(t)[:, None, None]
        return kappa_t / ((1 - kappa_t) * self._at(x_t).to(t.dtype))

    def _at(self, x_t: torch.Tensor) -> torch.Tensor:
        """π(x_t), [B, D, 1]."""
        return self._on(x_t.device)[0].expand(len(x_t), -1, -1).gather(-1, x_t[..., None])

    def _on(self, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """π and its sums where they are needed; there they stay."""
        if self._placed[0].device != device:
            self._placed = (self._placed[0].to(device), self._placed[1].to(device))
        return self._placed

    def _check_length(self, length: int) -> None:
        if length != len(self._sums):
            raise SpecError(
                f"length: got {length}, but the marginals of this process are of {len(self._sums)} positions"
            )
