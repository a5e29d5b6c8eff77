"""Another cost of the assignment, tried by gpu_study.py: a match counts as much as its position tells.

That is, the entropy of the data's tokens there. Sources are uniform, and blocks are as large as the library's.
"""

import numpy as np

from pairflow.marginals import marginals

_BLOCK_SIZE = 4096


def weighed(tokens: np.ndarray, vocab_size: int, replicas: int, seed: int) -> np.ndarray:
    """Uniform sources [R·M, D], replica after replica, matched in blocks so that their matches tell most."""
    from scipy.optimize import linear_sum_assignment

    marginal = marginals(tokens, vocab_size)
    entropy = -(marginal * np.log(marginal)).sum(1)
    draws = np.random.default_rng(seed)
    sources = draws.integers(0, vocab_size, (replicas, *tokens.shape), tokens.dtype)
    for drawn in sources:
        for rows in np.array_split(draws.permutation(len(tokens)), -(-len(tokens) // _BLOCK_SIZE)):
            gain = _one_hot(tokens[rows], vocab_size, entropy) @ _one_hot(drawn[rows], vocab_size).T
            drawn[rows] = drawn[rows][linear_sum_assignment(gain, maximize=True)[1]]
    return sources.reshape(-1, tokens.shape[1])


def _one_hot(tokens: np.ndarray, vocab_size: int, weights: np.ndarray | float = 1.0) -> np.ndarray:
    spread = np.eye(vocab_size, dtype=np.float32)[tokens] * np.asarray(weights, np.float32)[..., None]
    return spread.reshape(len(tokens), -1)
