"""The absorbing process (MDLM, arXiv 2406.07524; docs/method.md §3): noise replaces a token by a mask.

The mask is state K, one more than the data's tokens: the network reads K + 1 states and predicts K, so that it cannot
predict the mask, and a token that is not masked is x_1's own (the paper's SUBS parametrisation). What the unmasked
tokens say about the masked ones does not depend on t, so neither does the network: that makes its cache exact.
"""

import numpy as np
import torch

from pairflow.processes.base import Prediction, Process
from pairflow.schedule import d_kappa, kappa


class AbsorbingProcess(Process):
    """x_t^i = x_1^i with probability κ_t, else the mask."""

    name = "absorbing"
    time_free = True

    def __init__(self, vocab_size: int, predicts: Prediction = "others") -> None:
        super().__init__(vocab_size, predicts)
        self.mask = vocab_size
        self.num_states = vocab_size + 1

    def draw_source(self, shape: tuple[int, int], generator: torch.Generator) -> torch.Tensor:
        """All mask: int64 [B, D], on the generator's device."""
        return torch.full(shape, self.mask, device=generator.device)

    def keyed_source(self, seed: int, sample_ids: np.ndarray, length: int) -> np.ndarray:
        """All mask, whatever the seed: int64 [B, D]."""
        return np.full((len(sample_ids), length), self.mask, np.int64)

    def loss(self, logits: torch.Tensor, x_t: torch.Tensor, target: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """Continuous-time negative ELBO (MDLM Eq. 10), per token.

            κ̇/(1−κ) · 1[x_t = mask] · (−log pθ(x_1 | x_t))          Eq. (3.6)

        Args:
            logits: of pθ(x_1 | x_t), any float dtype, [B, D, K].
            x_t: int64 [B, D], up to K, the mask.
            target: x_1, int64 [B, D].
            t: times below 1, float [B].

        Returns:
            Nats per token, float32 [B, D].
        """
        rate = d_kappa(t.float()) / (1 - kappa(t.float()))
        return rate[:, None] * self.cross_entropy(logits, x_t, target, t)

    def cross_entropy(
        self, logits: torch.Tensor, x_t: torch.Tensor, target: torch.Tensor, t: torch.Tensor
    ) -> torch.Tensor:
        """−log pθ(x_1 | x_t) at masks, and 0 at x_1's own tokens, which are certain: float32 [B, D]."""
        surprise = -logits.float().log_softmax(dim=-1).gather(-1, target[..., None]).squeeze(-1)
        return torch.where(x_t == self.mask, surprise, 0.0)

    def denoiser(self, probs: torch.Tensor, x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """pθ where x_t is masked, and x_t itself where it is not: [B, D, K + 1], the mask having probability 0."""
        masked = (x_t == self.mask)[..., None]
        filled = torch.cat([probs * masked, torch.zeros_like(probs[..., :1])], dim=-1)
        return filled.scatter_add_(-1, x_t[..., None], (~masked).to(probs.dtype))

    def others(self, probs: torch.Tensor, x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """`probs` themselves: a mask is no evidence of what it hides."""
        return probs

    def posterior(self, probs: torch.Tensor, x_t: torch.Tensor, t: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        """Ancestral reverse step from t to s > t (MDLM Eq. 7): a mask is lifted with probability (κ_s−κ_t)/(1−κ_t).

        For this process it is the same as flow matching's step, Eq. (4.2): what is not masked never moves.
        """
        return self.euler(probs, x_t, t, s)

    def noise(self, like: torch.Tensor) -> torch.Tensor:
        """All on the mask: [K + 1]."""
        one_hot = like.new_zeros(self.num_states)
        one_hot[self.mask] = 1
        return one_hot

    def undetermined(self, x_t: torch.Tensor) -> torch.Tensor:
        """The masked positions: bool [B, D]."""
        return x_t == self.mask
