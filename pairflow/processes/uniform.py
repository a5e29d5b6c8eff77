"""The uniform process (UDLM, arXiv 2412.10193; docs/method.md §3): noise replaces a token by a uniform one.

Written with t = 0 at the source and t = 1 at the data: κ_t here is α of the paper's reversed time.
"""

import numpy as np
import torch

from pairflow.processes.base import Prediction, Process
from pairflow.rng import uniform_tokens
from pairflow.schedule import d_kappa, kappa


class UniformProcess(Process):
    """x_t^i = x_1^i with probability κ_t, else uniform over K: q_t(a|b) = κ_t·1[a = b] + (1−κ_t)/K, Eq. (1.2)."""

    name = "uniform"
    time_free = False

    def __init__(self, vocab_size: int, predicts: Prediction = "others") -> None:
        super().__init__(vocab_size, predicts)
        self.num_states = vocab_size

    def draw_source(self, shape: tuple[int, int], generator: torch.Generator) -> torch.Tensor:
        """Uniform source points x_0: int64 [B, D], on the generator's device."""
        return torch.randint(self.vocab_size, shape, generator=generator, device=generator.device)

    def keyed_source(self, seed: int, sample_ids: np.ndarray, length: int) -> np.ndarray:
        """Uniform source points, each a pure function of (seed, sample): int64 [B, D]."""
        return uniform_tokens(seed, sample_ids, length, self.vocab_size)

    def loss(self, logits: torch.Tensor, x_t: torch.Tensor, target: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """Continuous-time negative ELBO of the uniform process (UDLM Eq. 18; docs/method.md §3), per token.

        It is the relative entropy of the reversed noise's jump rates κ̇/(Kκ)·x̄_a/x̄_z, Eq. (3.1), to the model's, with
        x̄ = Kκ·onehot(x_1) + (1−κ)·1 and x̄θ = Kκ·pθ + (1−κ)·1:

            κ̇/(Kκ) · [ K/x̄θ_z − K/x̄_z + Σ_j (x̄_j/x̄_z)·log( x̄θ_z·x̄_j / (x̄θ_j·x̄_z) ) ]          Eq. (3.2)

        With c = γ − 1 = Kκ/(1−κ), every x̄_j is (1−κ)(1 + c·1[j = x_1]), and every x̄θ_j is (1−κ)(1 +
        c·pθ_j). Dividing by 1−κ leaves the sum over the vocabulary as S = Σ_j log(1 + c·pθ_j), the only
        quantity of shape [B, D, K]; what remains is arranged so that each part vanishes by itself as pθ goes
        to onehot(x_1), instead of as the difference of large numbers:

            gap  = log(1+c) − log(1+c·pθ_{x_1}),  rest = S − log(1+c·pθ_{x_1}),  L_z = log(1+c·pθ_z),
            z ≠ x_1:  K/(1−κ) · (e^{−L_z} − 1 + L_z) + (1+c)·gap − rest,
            z = x_1:  [ K/(1−κ) · (e^{gap} − 1 − gap) − rest ] / (1+c) + gap,

        both times κ̇/(Kκ), Eq. (3.3).

        The expectation of this loss is smallest where pθ^i is the posterior of x_1^i given the *other* positions of
        x_t, Eq. (3.4): the loss and `posterior` bring in the evidence of x_t^i themselves. With that prediction the
        loss integrates to the entropy of the data, and ancestral sampling is exact in the limit of many steps. Of a
        network that predicts "all" it is the loss of the pθ that its prediction implies, Eq. (3.8).

        Args:
            logits: of the network's prediction, any float dtype, [B, D, K].
            x_t: the noisy tokens z, int64 [B, D].
            target: x_1, int64 [B, D].
            t: times strictly between 0 and 1, float [B].

        Returns:
            Nats per token, float32 [B, D]: not negative up to rounding, zero iff pθ is onehot(x_1).
        """
        if self.predicts == "all":
            logits = self._weighed(logits, x_t, t, -1)
        kappa_t = kappa(t.float())[:, None]
        rate = d_kappa(t.float())[:, None] / (self.vocab_size * kappa_t)
        total = self.vocab_size / (1 - kappa_t)  # Σ_j x̄_j / (1−κ) = K + c
        odds = kappa_t * total  # c = γ − 1

        scaled = odds[..., None] * logits.float().softmax(dim=-1)  # c·pθ, the one tensor [B, D, K] that is kept
        log_sum = scaled.log1p().sum(dim=-1)
        scaled_target, scaled_here = scaled.gather(-1, torch.stack([target, x_t], dim=-1)).unbind(-1)
        log_target, log_here = scaled_target.log1p(), scaled_here.log1p()
        gap = ((odds - scaled_target) / (1 + scaled_target)).log1p()
        rest = log_sum - log_target

        moved = total * ((-log_here).expm1() + log_here) + (1 + odds) * gap - rest
        kept = (total * (gap.expm1() - gap) - rest) / (1 + odds) + gap
        return rate * torch.where(x_t == target, kept, moved)

    def cross_entropy(
        self, logits: torch.Tensor, x_t: torch.Tensor, target: torch.Tensor, t: torch.Tensor
    ) -> torch.Tensor:
        """−log p_{1|t}(x_1 | x_t), Eq. (3.7), per token: float32 [B, D], for times below 1.

        It is smallest where p_{1|t} is the posterior given all of x_t, whose π is where `loss` is smallest.
        """
        if self.predicts == "others":
            logits = self._weighed(logits, x_t, t, 1)
        return -logits.float().log_softmax(dim=-1).gather(-1, target[..., None]).squeeze(-1)

    def _weighed(self, logits: torch.Tensor, x_t: torch.Tensor, t: torch.Tensor, sign: int) -> torch.Tensor:
        """Logits with the own token's evidence brought in (sign 1) or taken out (−1), as in Eq. (3.5) and (3.8)."""
        kappa_t = kappa(t.float())
        evidence = sign * (self.vocab_size * kappa_t / (1 - kappa_t)).log1p()
        return logits.float().scatter_add(-1, x_t[..., None], evidence[:, None, None].expand(*x_t.shape, 1))

    def posterior(self, probs: torch.Tensor, x_t: torch.Tensor, t: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        """Ancestral reverse step from t to s > t, Eq. (4.1): the exact posterior with pθ in place of onehot(x_1).

        q(x_s | x_t, x_1) ∝ [ρ·1[x_s = x_t] + (1−ρ)/K] · [κ_s·x_1(x_s) + (1−κ_s)/K] with ρ = κ_t/κ_s, the
        chance that noise leaves a token alone from s down to t (UDLM Eq. 16; D3PM, arXiv 2107.03006, Eq. 3).

        Args:
            probs: the network's, float64 for exact draws, [B, D, K], summing to one over K.
            x_t: int64 [B, D].
            t: times in [0, 1), [B].
            s: times in (t, 1], [B].

        Returns:
            Probabilities of x_s, [B, D, K] in the dtype of `probs`, summing to one over K.
        """
        K = self.vocab_size
        probs = self.others(probs, x_t, t)
        kappa_t = kappa(t.to(probs.dtype))[:, None, None]
        kappa_s = kappa(s.to(probs.dtype))[:, None, None]
        stay = kappa_t / kappa_s
        marginal = kappa_s * probs + (1 - kappa_s) / K
        here = marginal.gather(-1, x_t[..., None])
        joint = marginal * ((1 - stay) / K)
        joint.scatter_add_(-1, x_t[..., None], stay * here)
        return joint / joint.sum(dim=-1, keepdim=True)

    def denoiser(self, probs: torch.Tensor, x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """p_{1|t} of docs/method.md §2 from a network's prediction, by bringing in the evidence of the own token.

        A network that predicts "all" says p_{1|t} itself. Else pθ^i is the posterior given the others (see `loss`). By
        Bayes' rule p_{1|t}(a | x_t) is proportional to pθ^i(a)·q(x_t^i | x_1^i = a), and the likelihoods of the own
        token and of any other one have the odds γ_t: p_{1|t}(a) = pθ(a)·γ^{1[a = x_t]} / (1 + (γ−1)·pθ(x_t)), Eq.
        (3.5). Of a network that was trained on pairs this is p_{1|t} of the pairs.

        Args:
            probs: pθ(x_1 | x_t), [B, D, K], summing to one over K.
            x_t: int64 [B, D].
            t: times in [0, 1), [B].

        Returns:
            [B, D, K] in the dtype of `probs`, summing to one over K.
        """
        if self.predicts == "all":
            return probs
        kappa_t = kappa(t.to(probs.dtype))[:, None, None]
        odds = self.vocab_size * kappa_t / (1 - kappa_t)  # γ − 1
        here = probs.gather(-1, x_t[..., None])
        return probs.scatter_add(-1, x_t[..., None], odds * here) / (1 + odds * here)

    def others(self, probs: torch.Tensor, x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """π of Eq. (3.4) from a network's prediction, the inverse of `denoiser`: the own token's evidence is taken out.

        π(a) = p(a)·γ_t^{1[a ≠ x_t]} / (p(x_t) + γ_t·(1 − p(x_t))) with p = p_{1|t}, Eq. (3.8). A network that predicts
        "others" says π itself.

        Args:
            probs: float64, where t is near 1 and p(x_t) with it; [B, D, K], summing to one over K.
            x_t: int64 [B, D].
            t: times in [0, 1), [B].

        Returns:
            [B, D, K] in the dtype of `probs`, summing to one over K.
        """
        if self.predicts == "others":
            return probs
        kappa_t = kappa(t.to(probs.dtype))[:, None, None]
        gamma_t = 1 + self.vocab_size * kappa_t / (1 - kappa_t)
        here = x_t[..., None]
        joint = (gamma_t * probs).scatter(-1, here, probs.gather(-1, here))
        return joint / joint.sum(dim=-1, keepdim=True)

    def noise(self, like: torch.Tensor) -> torch.Tensor:
        """Uniform: [K]."""
        return like.new_full((self.num_states,), 1 / self.vocab_size)

    def undetermined(self, x_t: torch.Tensor) -> torch.Tensor:
        """All positions: any token may be noise."""
        return torch.ones_like(x_t, dtype=torch.bool)
