"""Couples every data point with a source point, before training and without a teacher.

`couple` is the one way in. Engines are looked up here:

- `cpu`: numba, exact sampling without marginals; the default.
- `dense`: the equations written out in torch; the oracle, for small supports.

Each engine has a version, which is part of a coupling's fingerprint: equal fingerprints mean equal bytes.
"""

import importlib
import os
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pairflow.errors import SpecError
from pairflow.rng import uniform_tokens
from pairflow.spec import CouplingSpec

ENGINES = ("cpu", "dense")
MAX_LENGTH = 65_535

_ROWS_PER_DRAW = 4096


def couple(
    target: ArrayLike,
    support: ArrayLike | None = None,
    *,
    vocab_size: int,
    spec: CouplingSpec,
    sample_ids: ArrayLike | None = None,
    engine: str = "auto",
    num_threads: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> NDArray[Any]:
    """Draws a source point x_0 for every target x_1 (PairFlow, arXiv 2512.20063, Algorithm 1; method.md §2).

    The source of a row is a pure function of the row, the support, `vocab_size`, `spec`, the row's sample id and the
    engine's version: the size and order of the batch, threads and processes never show in it.

    Args:
        target: [B, D] integers in 0..K−1, D from 1 to 65,535.
        support: [M, D], the data points that the posterior is taken over; `target` itself by default. Rows of
            `target` are expected to be among them. For one that is not, the first step treats the row as if it
            were, and all others use the support alone: an approximation, for data that arrives later. A support in
            Fortran order is used without a copy.
        vocab_size: K, the vocabulary's size (not the largest token seen), at least 2.
        spec: what to draw; `spec.kind == "independent"` draws uniform sources and ignores the support.
        sample_ids: [B] non-negative integers that key the draws; 0..B−1 by default.
        engine: "auto", "cpu" or "dense".
        num_threads: threads of this process to use; all that the process may run on by default.
        progress: called now and then with the number of rows done since the last call.

    Returns:
        The sources, [B, D] with the dtype of `target`.

    Raises:
        SpecError: an array or a value does not fit; the message says what, got, expected.
    """
    tokens = _check_tokens(target, "target", vocab_size)
    name = resolve_engine(engine, spec)
    num_rows, length = tokens.shape
    ids = _check_sample_ids(sample_ids, num_rows)
    if num_threads is not None and num_threads < 1:
        raise SpecError(f"num_threads: got {num_threads}, expected at least 1")
    if spec.kind == "independent":
        source = np.empty_like(tokens)
        for start in range(0, num_rows, _ROWS_PER_DRAW):
            rows = slice(start, start + _ROWS_PER_DRAW)
            source[rows] = uniform_tokens(spec.seed, ids[rows], length, vocab_size)
            if progress is not None:
                progress(len(source[rows]))
    else:
        points = tokens if support is None else _check_tokens(support, "support", vocab_size)
        if points.shape[1] != length:
            raise SpecError(
                f"support has rows of {points.shape[1]} tokens and target of {length}; both must have the same length"
            )
        source = importlib.import_module(f"pairflow.coupling.{name}").couple_rows(
            tokens,
            points,
            vocab_size=vocab_size,
            spec=spec,
            sample_ids=ids,
            num_threads=num_threads or _usable_cores(),
            progress=progress,
        )
    return source.astype(np.asarray(target).dtype, copy=False)


def resolve_engine(engine: str, spec: CouplingSpec) -> str:
    """The engine that `engine` means for `spec` on this machine.

    Raises:
        SpecError: no engine has this name.
    """
    if engine == "auto":
        return "cpu"
    if engine not in ENGINES:
        raise SpecError(f"engine: got {engine!r}, expected 'auto' or one of {', '.join(ENGINES)}")
    return engine


def engine_version(name: str) -> str:
    """Name and version of an engine, such as 'cpu/1', as it enters a coupling's fingerprint."""
    return f"{name}/{importlib.import_module(f'pairflow.coupling.{name}').VERSION}"


def _check_tokens(array: ArrayLike, name: str, vocab_size: int) -> NDArray[np.unsignedinteger]:
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


def _check_sample_ids(sample_ids: ArrayLike | None, num_rows: int) -> NDArray[np.uint64]:
    if sample_ids is None:
        return np.arange(num_rows, dtype=np.uint64)
    ids = np.asarray(sample_ids)
    if ids.shape != (num_rows,) or ids.dtype.kind not in "ui":
        raise SpecError(f"sample_ids: got {ids.dtype} of shape {ids.shape}, expected integers of shape ({num_rows},)")
    if ids.dtype.kind == "i" and num_rows and int(ids.min()) < 0:
        raise SpecError(f"sample_ids: got {int(ids.min())}, expected no negative numbers")
    return ids.astype(np.uint64)


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
