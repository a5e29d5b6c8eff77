"""What every way into the coupling asks of the arrays that it is given."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pairflow.errors import SpecError

MAX_LENGTH = 65_535


def check_tokens(array: ArrayLike, name: str, vocab_size: int) -> NDArray[np.unsignedinteger]:
    """`array` as the smallest unsigned integers that hold K tokens, without a copy where they already are."""
    if not 2 <= vocab_size <= 2**32:
        raise SpecError(f"vocab_size: got {vocab_size}, expected 2 to 2^32")
    tokens = np.asarray(array)
    if tokens.dtype.kind not in "ui":
        raise SpecError(f"{name}: got an array of {tokens.dtype}, expected integers (token numbers)")
    if tokens.ndim != 2:
        raise SpecError(f"{name}: got shape {tokens.shape}, expected two axes [rows, length]")
    if 0 in tokens.shape:
        raise SpecError(f"{name}: got shape {tokens.shape}, expected at least one row and one token a row")
    if tokens.shape[1] > MAX_LENGTH:
        raise SpecError(f"{name}: got rows of {tokens.shape[1]} tokens, expected at most {MAX_LENGTH}")
    for bound, is_bad in (
        (int(tokens.min()), lambda x: x < 0),
        (int(tokens.max()), lambda x: x >= vocab_size),
    ):
        if is_bad(bound):
            row, position = np.argwhere(tokens == bound)[0]
            raise SpecError(
                f"{name}: token {bound} at row {row}, position {position} is outside the vocabulary; expected 0 to "
                f"{vocab_size - 1} (vocab_size {vocab_size})"
            )
    return tokens.astype(np.min_scalar_type(vocab_size - 1), copy=False)


def check_keys(
    keys: ArrayLike | None, name: str, default: NDArray[np.uint64], limit: int | None = None
) -> NDArray[np.uint64]:
    """`keys` as non-negative integers of the default's shape, below `limit`; the default where there are none."""
    if keys is None:
        return default
    array = np.asarray(keys)
    if array.shape != default.shape or array.dtype.kind not in "ui":
        raise SpecError(f"{name}: got {array.dtype} of shape {array.shape}, expected integers of shape {default.shape}")
    if array.dtype.kind == "i" and int(array.min()) < 0:
        raise SpecError(f"{name}: got {int(array.min())}, expected no negative numbers")
    if limit is not None and int(array.max()) >= limit:
        raise SpecError(f"{name}: got {int(array.max())}, expected numbers below {limit}")
    return array.astype(np.uint64)
