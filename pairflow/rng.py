"""Counter-based random draws, keyed by (seed, sample, step, position, purpose).

A draw is a pure function of its key, so a result does not depend on batch size, shard size, number of workers, order
or a restart. The generator is Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011),
which Triton carries as well. The counter's four words are

    position | step (16 bits), replica (12 bits), purpose (4 bits) | sample, low word | sample, high word

and the key's two words are the seed. One call yields four words of 32 bits, that is two uniform floats of 53 bits.
"""

from enum import IntEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray

MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10
REPLICA_SHIFT, PURPOSE_SHIFT = 16, 28  # places in the counter's second word
_LOW = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)
_KEYS_AT_ONCE = 1 << 18  # some 20 MB of working memory


class Purpose(IntEnum):
    """What a draw decides; draws of different purposes are independent of each other."""

    MOVE = 0  # coupling: does the position move?
    REPLACE = 1  # coupling: to which token, and from which row was the agreement read?
    SOURCE = 2  # a source point x_0, uniform over all tokens
    REVERSE = 3  # sampling: a token of the reverse step
    SUBSET = 4  # coupling: which rows of the support are used
    ORDER = 5  # coupling by assignment: which rows make a block, and in which order
    MATCHED = 6  # coupling by assignment: a source point, which no sampling starts from


def philox4x32(counter: tuple[ArrayLike, ArrayLike, ArrayLike, ArrayLike], seed: int) -> tuple[NDArray[np.uint64], ...]:
    """Philox4x32-10 of broadcastable counter words under the key (seed mod 2^32, seed div 2^32).

    Returns:
        Four arrays of the broadcast shape, each word (below 2^32) held in a uint64.
    """
    c0, c1, c2, c3 = np.broadcast_arrays(*(np.asarray(word, np.uint64) & _LOW for word in counter))
    k0, k1 = seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF
    for _ in range(ROUNDS):
        product_0 = c0 * np.uint64(MULTIPLIERS[0])
        product_1 = c2 * np.uint64(MULTIPLIERS[1])
        c0, c1, c2, c3 = (
            (product_1 >> _SHIFT) ^ c1 ^ np.uint64(k0),
            product_1 & _LOW,
            (product_0 >> _SHIFT) ^ c3 ^ np.uint64(k1),
            product_0 & _LOW,
        )
        k0, k1 = (k0 + WEYL[0]) & 0xFFFFFFFF, (k1 + WEYL[1]) & 0xFFFFFFFF
    return c0, c1, c2, c3


def to_unit(high: NDArray[np.uint64], low: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Two words of 32 bits -> a float64 in [0, 1) with 53 random bits."""
    bits = ((high >> np.uint64(5)) << np.uint64(26)) | (low >> np.uint64(6))
    return bits.astype(np.float64) * 2.0**-53


def draw_pairs(
    seed: int,
    sample_ids: NDArray[np.integer],
    step: int,
    length: int,
    purpose: Purpose,
    replicas: NDArray[np.integer] | int = 0,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Two independent uniform floats in [0, 1) for every sample and position, each of shape [B, D]."""
    ids = np.asarray(sample_ids, np.uint64)[:, None]
    word = np.uint64(step | int(purpose) << PURPOSE_SHIFT) | (
        np.asarray(replicas, np.uint64).reshape(-1, 1) << np.uint64(REPLICA_SHIFT)
    )
    w0, w1, w2, w3 = philox4x32((np.arange(length, dtype=np.uint64)[None], word, ids, ids >> _SHIFT), seed)
    return to_unit(w0, w1), to_unit(w2, w3)


def draw_one_each(
    seed: int, keys: NDArray[np.integer], step: int, purpose: Purpose, replica: int = 0
) -> NDArray[np.float64]:
    """One uniform float in [0, 1) a key, shape [B], with little working memory however many keys there are."""
    draws = np.empty(len(keys))
    for start in range(0, len(keys), _KEYS_AT_ONCE):
        some = slice(start, start + _KEYS_AT_ONCE)
        draws[some] = draw_pairs(seed, keys[some], step, 1, purpose, replica)[0][:, 0]
    return draws


def uniform_draws(seed: int, sample_ids: NDArray[np.integer], step: int, length: int) -> NDArray[np.float64]:
    """Uniform floats in [0, 1) for one reverse step of sampling, shape [B, D]."""
    return draw_pairs(seed, sample_ids, step, length, Purpose.REVERSE)[0]


def uniform_tokens(
    seed: int,
    sample_ids: NDArray[np.integer],
    length: int,
    vocab_size: int,
    replicas: NDArray[np.integer] | int = 0,
    purpose: Purpose = Purpose.SOURCE,
) -> NDArray[np.int64]:
    """Source points x_0, each token uniform over the K tokens, shape [B, D]."""
    units, _ = draw_pairs(seed, sample_ids, 0, length, purpose, replicas)
    return (units * vocab_size).astype(np.int64)
