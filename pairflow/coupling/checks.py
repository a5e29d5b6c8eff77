"""What every way into the coupling asks of what it is given.

An array that carries more than its numbers is never read as if it did not.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pairflow.errors import SpecError
from pairflow.integers import check_integer

if TYPE_CHECKING:  # only names: a machine with a GPU and no pydantic can still run the engines
    from pairflow.spec import CouplingSpec

MAX_LENGTH = 65_535
_FIELDS = ("kind", "num_steps", "seed", "temperature", "epsilon", "support_size")


def check_spec(spec: "CouplingSpec") -> "CouplingSpec":
    """The spec, read anew where it can be: a copy with updates was never checked.

    Raises:
        SpecError: it lacks a field of a coupling's spec, or one is out of its range.
    """
    if missing := [name for name in _FIELDS if not hasattr(spec, name)]:
        raise SpecError(
            f"spec: got {type(spec).__name__} without {missing[0]}, expected a CouplingSpec, such as "
            "pairflow.spec.CouplingSpec(num_steps=20)"
        )
    if not hasattr(spec, "model_dump"):  # what has its fields, on a machine without pydantic
        return spec
    from pairflow.spec import parse

    return parse(type(spec), spec.model_dump(warnings=False))


def check_tokens(array: ArrayLike, name: str, vocab_size: int) -> NDArray[np.unsignedinteger]:
    """`array` as the smallest unsigned integers that hold K tokens, without a copy where they already are."""
    vocab_size = check_integer(vocab_size, "vocab_size", 2, 2**32)
    tokens = _as_integers(array, name)
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


def check_dtype(array: ArrayLike, vocab_size: int) -> np.dtype[Any]:
    """The type of `target`, in which the sources come back: it must hold every token, not only those in `target`.

    Raises:
        SpecError: it does not.
    """
    dtype = np.asarray(array).dtype
    if np.iinfo(dtype).max < vocab_size - 1:
        raise SpecError(
            f"target: got an array of {dtype}, which cannot hold every source: tokens go up to {vocab_size - 1} "
            f"(vocab_size {vocab_size}); cast it with target.astype('{np.min_scalar_type(vocab_size - 1)}')"
        )
    return dtype


def check_keys(
    keys: ArrayLike | None, name: str, default: NDArray[np.uint64], limit: int | None = None
) -> NDArray[np.uint64]:
    """Non-negative integers, one a row."""
    if keys is None:
        return default
    array = _as_integers(keys, name)
    if array.shape != default.shape:
        raise SpecError(f"{name}: got {array.dtype} of shape {array.shape}, expected integers of shape {default.shape}")
    if array.dtype.kind == "i" and int(array.min()) < 0:
        raise SpecError(f"{name}: got {int(array.min())}, expected no negative numbers")
    if limit is not None and int(array.max()) >= limit:
        raise SpecError(f"{name}: got {int(array.max())}, expected numbers below {limit}")
    return array.astype(np.uint64)


def _as_integers(array: ArrayLike, name: str) -> NDArray[Any]:
    if np.ma.is_masked(array):
        raise SpecError(
            f"{name}: {int(np.ma.count_masked(array)):,} values are masked, and every position needs a token; fill "
            f"them with {name}.filled(…), or leave their rows out"
        )
    if hasattr(array, "toarray"):
        raise SpecError(f"{name}: got a sparse {type(array).__name__}; give {name}.toarray()")
    try:
        found = np.asarray(array)
    except (TypeError, ValueError, RuntimeError) as error:  # of unequal rows, or on a GPU
        raise SpecError(f"{name}: cannot be read as an array: {str(error)[:300]}; expected integers") from None
    if found.dtype.kind not in "ui":
        raise SpecError(f"{name}: got an array of {found.dtype}, expected integers (token numbers)")
    return found
