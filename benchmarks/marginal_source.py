"""A source from the data's marginals instead of a uniform one, as a noise process and as pairs; tried by gpu_study.py.

    python benchmarks/marginal_source.py       checks bound and posterior against the equations written out

The studies digits_rest and qm9_rest of gpu_study_plan.py have its models. `weighed` is the other cost that was tried: a
uniform source, matched by a Hamming distance in which a position counts as much as it tells. Noise is a
product distribution π_i(a), its own at every position i:

    q_t(a | b) = κ_t·1[a = b] + (1−κ_t)·π_i(a)

With x̄_a = q_t(a | x_1) and x̄θ the same with pθ in place of onehot(x_1), noise of rate β = κ̇/κ replaces any token by a
draw of π, so that the reversed noise jumps from z to a with rate β·π(z)·x̄_a/x̄_z. The bound's integrand is the relative
entropy of these rates to the model's, whose gap is the path's:

    β·π(z) · Σ_{a ≠ z} [ x̄θ_a/x̄θ_z − x̄_a/x̄_z + (x̄_a/x̄_z)·log( x̄_a·x̄θ_z / (x̄_z·x̄θ_a) ) ]

and the posterior, with ρ = κ_t/κ_s, is [ρ·1[x_s = x_t] + (1−ρ)·π(x_t)] · [κ_s·x_1(x_s) + (1−κ_s)·π(x_s)], normalised.
For π uniform both are those of `pairflow.processes.UniformProcess`.
"""

from collections.abc import Callable

import numpy as np
import torch

from pairflow.processes import Prediction, UniformProcess
from pairflow.rng import Purpose, draw_pairs
from pairflow.schedule import d_kappa, kappa

_UNIFORM_SHARE = 0.02  # of the marginals: no token is impossible
_BLOCK_SIZE = 4096


def marginals(tokens: np.ndarray, vocab_size: int) -> np.ndarray:
    """π [D, K] float64: how often a token stands at a position, with a small share of the uniform distribution."""
    counts = np.stack([np.bincount(column, minlength=vocab_size) for column in tokens.T]) / len(tokens)
    return (1 - _UNIFORM_SHARE) * counts + _UNIFORM_SHARE / vocab_size


class MarginalProcess(UniformProcess):
    """Noise from `marginal` [D, K]; what is not said here is the uniform process's."""

    def __init__(self, vocab_size: int, predicts: Prediction, marginal: np.ndarray) -> None:
        super().__init__(vocab_size, predicts)
        self.marginal = torch.from_numpy(marginal)

    def draw_source(self, shape: tuple[int, int], generator: torch.Generator) -> torch.Tensor:
        draws = torch.rand(shape, generator=generator, device=generator.device, dtype=torch.float64)
        return self._token_of(draws)

    def keyed_source(self, seed: int, sample_ids: np.ndarray, length: int) -> np.ndarray:
        draws, _ = draw_pairs(seed, sample_ids, 0, length, Purpose.SOURCE)
        return self._token_of(torch.from_numpy(draws)).numpy()

    def _token_of(self, draws: torch.Tensor) -> torch.Tensor:
        places = torch.searchsorted(self.marginal.cumsum(-1).to(draws.device), draws.T.contiguous()).T
        return places.clamp_max(self.vocab_size - 1).contiguous()

    def _noised(self, probs: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        kappa_t = kappa(t.double())[:, None, None]
        return kappa_t * probs + (1 - kappa_t) * self.marginal.to(probs.device)

    def _evidence(self, x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """log of the odds γ = q(x_t | x_t) / q(x_t | another), [B, D]."""
        kappa_t = kappa(t.double())[:, None]
        return (kappa_t / ((1 - kappa_t) * self._at(x_t))).log1p()

    def _at(self, x_t: torch.Tensor) -> torch.Tensor:
        return self.marginal.to(x_t.device).expand(len(x_t), -1, -1).gather(-1, x_t[..., None]).squeeze(-1)

    def _weighed(self, logits: torch.Tensor, x_t: torch.Tensor, t: torch.Tensor, sign: int) -> torch.Tensor:
        evidence = (sign * self._evidence(x_t, t)).float()
        return logits.float().scatter_add(-1, x_t[..., None], evidence[..., None])

    def loss(self, logits: torch.Tensor, x_t: torch.Tensor, target: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        if self.predicts == "all":
            logits = self._weighed(logits, x_t, t, -1)
        here = x_t[..., None]
        true = self._noised(torch.nn.functional.one_hot(target, self.vocab_size).double(), t)
        said = self._noised(logits.double().softmax(-1), t)
        true, said = true / true.gather(-1, here), said / said.gather(-1, here)
        terms = (said - true + true * (true / said).log()).scatter(-1, here, 0.0)
        rate = (d_kappa(t.double()) / kappa(t.double()))[:, None] * self._at(x_t)
        return (rate * terms.sum(-1)).float()

    def posterior(self, probs: torch.Tensor, x_t: torch.Tensor, t: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        probs = self.others(probs, x_t, t)
        stay = (kappa(t.to(probs.dtype)) / kappa(s.to(probs.dtype)))[:, None, None]
        marginal = self._noised(probs, s)
        here = x_t[..., None]
        joint = marginal * ((1 - stay) * self._at(x_t)[..., None])
        joint = joint.scatter_add(-1, here, stay * marginal.gather(-1, here))
        return joint / joint.sum(-1, keepdim=True)

    def denoiser(self, probs: torch.Tensor, x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return probs if self.predicts == "all" else self._tilted(probs, x_t, t, 1)

    def others(self, probs: torch.Tensor, x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return probs if self.predicts == "others" else self._tilted(probs, x_t, t, -1)

    def _tilted(self, probs: torch.Tensor, x_t: torch.Tensor, t: torch.Tensor, sign: int) -> torch.Tensor:
        here = x_t[..., None]
        odds = (sign * self._evidence(x_t, t)).exp()[..., None]
        joint = probs.scatter(-1, here, odds * probs.gather(-1, here))
        return joint / joint.sum(-1, keepdim=True)

    def noise(self, like: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError("noise has its own distribution at every position")


def of(tokens: np.ndarray, vocab_size: int) -> Callable[[int, Prediction], MarginalProcess]:
    """The process of some data, as the registry of processes has them."""
    marginal = marginals(tokens, vocab_size)
    return lambda vocab_size, predicts: MarginalProcess(vocab_size, predicts, marginal)


def assigned(tokens: np.ndarray, vocab_size: int, replicas: int, seed: int) -> np.ndarray:
    """Sources [R·M, D] of the marginals, replica after replica; a match counts −log π of its token."""
    marginal = marginals(tokens, vocab_size)
    return _matched(tokens, marginal, -np.log(marginal), replicas, seed)


def weighed(tokens: np.ndarray, vocab_size: int, replicas: int, seed: int) -> np.ndarray:
    """Uniform sources [R·M, D], replica after replica; a match counts the entropy of the data at its position."""
    marginal = marginals(tokens, vocab_size)
    entropy = -(marginal * np.log(marginal)).sum(1, keepdims=True)
    uniform = np.full_like(marginal, 1 / vocab_size)
    return _matched(tokens, uniform, np.broadcast_to(entropy, marginal.shape), replicas, seed)


ASSIGNED = {"marginal": assigned, "weighed": weighed}


def _matched(tokens: np.ndarray, noise: np.ndarray, gains: np.ndarray, replicas: int, seed: int) -> np.ndarray:
    """Draws of `noise` [D, K], matched in blocks so that the sum of `gains` [D, K] over equal tokens is largest."""
    from scipy.optimize import linear_sum_assignment

    process = MarginalProcess(noise.shape[1], "others", noise)
    generator = torch.Generator().manual_seed(seed)
    order = np.random.default_rng(seed)
    sources = np.empty((replicas, *tokens.shape), tokens.dtype)
    for replica in range(replicas):
        drawn = process.draw_source((len(tokens), tokens.shape[1]), generator).numpy()
        for rows in np.array_split(order.permutation(len(tokens)), -(-len(tokens) // _BLOCK_SIZE)):
            gain = _one_hot(tokens[rows], gains) @ _one_hot(drawn[rows], np.ones_like(gains)).T
            _, columns = linear_sum_assignment(gain, maximize=True)
            sources[replica, rows] = drawn[rows][columns]
    return sources.reshape(-1, tokens.shape[1])


def _one_hot(tokens: np.ndarray, values: np.ndarray) -> np.ndarray:
    spread = np.eye(values.shape[1], dtype=np.float32)[tokens] * values.astype(np.float32)
    return spread.reshape(len(tokens), -1)


def _check() -> None:
    """Bound, posterior, conversions: by the equations written out over all tokens, and for π uniform by the library."""
    generator = torch.Generator().manual_seed(0)
    rows, length, size = 500, 3, 5
    marginal = torch.rand(length, size, generator=generator, dtype=torch.float64)
    marginal /= marginal.sum(-1, keepdim=True)
    t = torch.rand(rows, generator=generator, dtype=torch.float64) * 0.9 + 0.01
    s = t + (1 - t) * torch.rand(rows, generator=generator, dtype=torch.float64)
    target, x_t = (torch.randint(size, (rows, length), generator=generator) for _ in range(2))
    logits = torch.randn(rows, length, size, generator=generator, dtype=torch.float64)
    probs = logits.softmax(-1)
    own = MarginalProcess(size, "others", marginal.numpy())
    told = MarginalProcess(size, "all", marginal.numpy())
    posterior, loss, all_of = (
        own.posterior(probs, x_t, t, s),
        own.loss(logits, x_t, target, t),
        own.denoiser(probs, x_t, t),
    )
    likelihood = _transitions(marginal, t)
    torch.testing.assert_close(told.others(all_of, x_t, t), probs)
    torch.testing.assert_close(told.loss(all_of.log(), x_t, target, t), loss, rtol=1e-4, atol=1e-6)
    for b in range(0, rows, 25):
        for i in range(length):
            z, pi = x_t[b, i], marginal[i]
            evidence = probs[b, i] * likelihood[b, i, :, z]
            torch.testing.assert_close(all_of[b, i], evidence / evidence.sum())
            noisier = t[b] / s[b] * torch.eye(size) + (1 - t[b] / s[b]) * pi  # q(x_t | x_s)
            joint = noisier[:, z] * (s[b] * probs[b, i] + (1 - s[b]) * pi)
            torch.testing.assert_close(posterior[b, i], joint / joint.sum())
            true = t[b] * torch.eye(size)[target[b, i]] + (1 - t[b]) * pi
            said = t[b] * probs[b, i] + (1 - t[b]) * pi
            bound = sum(
                pi[z]
                / t[b]
                * (
                    said[a] / said[z]
                    - true[a] / true[z]
                    + true[a] / true[z] * torch.log(true[a] * said[z] / (true[z] * said[a]))
                )
                for a in range(size)
                if a != z
            )
            torch.testing.assert_close(loss[b, i].double(), torch.as_tensor(bound), rtol=1e-4, atol=1e-6)
    flat, library = MarginalProcess(size, "others", np.full((length, size), 1 / size)), UniformProcess(size)
    torch.testing.assert_close(
        flat.loss(logits, x_t, target, t), library.loss(logits, x_t, target, t), rtol=1e-4, atol=1e-5
    )
    torch.testing.assert_close(flat.posterior(probs, x_t, t, s), library.posterior(probs, x_t, t, s))
    torch.testing.assert_close(flat.denoiser(probs, x_t, t), library.denoiser(probs, x_t, t))
    drawn = own.draw_source((200_000, length), generator)
    seen = torch.stack([torch.bincount(column, minlength=size) for column in drawn.T]) / len(drawn)
    torch.testing.assert_close(seen, marginal.float(), rtol=0, atol=0.006)  # 5 deviations of the largest
    print("bound, posterior, conversions and draws agree with the equations written out")


def _transitions(marginal: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """q_t(a | b) as [B, D, b, a]."""
    kept = t[:, None, None, None] * torch.eye(marginal.shape[1], dtype=torch.float64)
    return kept + (1 - t)[:, None, None, None] * marginal[None, :, None, :]


if __name__ == "__main__":
    _check()
