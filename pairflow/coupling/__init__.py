"""Couples every data point with a source point, before training and without a teacher.

`couple` is the one way in. Engines are looked up here:

- `cpu`: numba, exact sampling without marginals; the default where no GPU is.
- `cuda`: the same on a GPU, a batch of rows in lockstep, by Triton's kernels or torch's; the default where one is.
- `dense`: the equations written out in torch; the oracle, for small supports.
- `assignment`: sources matched to rows a block at a time, for specs of that kind and for no others.

A support larger than one process or GPU can be split: `couple_in_parts`. An assignment is made a block, or a run of
stored pairs, at a time by `pairflow.coupling.assignment`.

Each engine has a version, which is part of a coupling's fingerprint: equal fingerprints mean equal bytes. Before you
change one, read the README beside this file. May import `schedule`, `rng`, `integers`, `spec` and `errors` of the
library.
"""

import functools
import importlib
import importlib.util
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pairflow.coupling.checks import check_dtype, check_keys, check_spec, check_tokens
from pairflow.coupling.parts import LocalParts
from pairflow.coupling.result import Coupled
from pairflow.coupling.versions import VERSIONS
from pairflow.errors import SpecError
from pairflow.integers import check_integer
from pairflow.rng import Purpose, draw_one_each, uniform_tokens

if TYPE_CHECKING:  # only names: a machine with a GPU and no pydantic can still run the engines
    from pairflow.coupling.parts import SplitSupport
    from pairflow.spec import CouplingSpec

ENGINES = ("cpu", "cuda", "dense")
MAX_REPLICAS = 4096

_ROWS_PER_DRAW = 4096
_DRIVERS = ("/dev/nvidiactl", "/dev/dxg")  # there where an NVIDIA driver is: on Linux, and on Linux in Windows


def couple(
    target: ArrayLike,
    support: ArrayLike | None = None,
    *,
    vocab_size: int,
    spec: "CouplingSpec",
    sample_ids: ArrayLike | None = None,
    replicas: ArrayLike | None = None,
    engine: str = "auto",
    num_threads: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> NDArray[Any]:
    """Draws a source point x_0 for every target x_1 (PairFlow, arXiv 2512.20063, Algorithm 1; docs/method.md §2).

    The source of a row is a pure function of the row, the support, `vocab_size`, `spec`, the row's sample id and the
    engine's version: the size and order of the batch, threads and processes never show in it.

    Args:
        target: [B, D] integers in 0..K−1, D from 1 to 65,535, of a type that holds K − 1.
        support: [M, D], the data points that the posterior is taken over; `target` itself by default. A row of
            `target` that is not among them is taken to be one more. Fortran order saves a copy.
        vocab_size: K, the vocabulary's size (not the largest token seen), at least 2.
        spec: what to draw; `spec.kind == "independent"` draws uniform sources, those that `sample` starts from with
            the same seed, and ignores the support; "assignment" matches sources of its own to rows, which must be rows
            of the support (docs/method.md §7).
        sample_ids: [B] non-negative integers that key the draws; 0..B−1 by default. For an assignment: which rows
            of the support these are.
        replicas: [B] integers below 4,096, which of its sources a row gets (`spec.sources_per_target` is how many
            the pair store keeps); 0 by default.
        engine: "auto", "cpu", "cuda" or "dense"; an assignment has an engine of its own, for "auto" and "cpu".
        num_threads: threads of this process to use; all that the process may run on by default. The cuda engine
            waits for the GPU in one.
        progress: called now and then with the number of rows done since the last call.

    Returns:
        The sources, [B, D] with the dtype of `target`.

    Raises:
        SpecError: an array or a value does not fit; the message says what, got, expected.
    """
    return couple_counted(
        target,
        support,
        vocab_size=vocab_size,
        spec=spec,
        sample_ids=sample_ids,
        replicas=replicas,
        engine=engine,
        num_threads=num_threads,
        progress=progress,
    ).source


def couple_counted(
    target: ArrayLike,
    support: ArrayLike | None = None,
    *,
    vocab_size: int,
    spec: "CouplingSpec",
    sample_ids: ArrayLike | None = None,
    replicas: ArrayLike | None = None,
    engine: str = "auto",
    num_threads: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Coupled:
    """As `couple`, and counts how often the support was scanned."""
    spec = check_spec(spec)
    vocab_size = check_integer(vocab_size, "vocab_size", 2, 2**32)
    tokens = check_tokens(target, "target", vocab_size)
    dtype = check_dtype(target, vocab_size)
    name = resolve_engine(engine, spec)
    num_rows, length = tokens.shape
    ids = check_keys(sample_ids, "sample_ids", np.arange(num_rows, dtype=np.uint64))
    copies = check_keys(replicas, "replicas", np.zeros(num_rows, np.uint64), limit=MAX_REPLICAS)
    if num_threads is not None:
        num_threads = check_integer(num_threads, "num_threads", 1)
    if progress is not None and not callable(progress):
        raise SpecError(f"progress: got {progress!r}, expected a function of the number of rows done")
    if spec.kind == "independent":
        source = np.empty_like(tokens)
        for start in range(0, num_rows, _ROWS_PER_DRAW):
            rows = slice(start, start + _ROWS_PER_DRAW)
            source[rows] = uniform_tokens(spec.seed, ids[rows], length, vocab_size, copies[rows])
            if progress is not None:
                progress(len(source[rows]))
        coupled = Coupled(source, np.zeros(num_rows, np.int64))
    else:
        points = tokens if support is None else check_tokens(support, "support", vocab_size)
        if points.shape[1] != length:
            raise SpecError(
                f"support has rows of {points.shape[1]} tokens and target of {length}; both must have the same length"
            )
        coupled = importlib.import_module(f"pairflow.coupling.{name}").couple_rows(
            tokens,
            support_rows(points, spec),
            vocab_size=vocab_size,
            spec=spec,
            sample_ids=ids,
            replicas=copies,
            num_threads=num_threads or _usable_cores(),
            progress=progress,
        )
    return replace(coupled, source=coupled.source.astype(dtype, copy=False))


def couple_in_parts(
    target: ArrayLike,
    support: "SplitSupport",
    *,
    vocab_size: int,
    spec: "CouplingSpec",
    sample_ids: ArrayLike | None = None,
    replicas: ArrayLike | None = None,
    rows_per_batch: int = 256,
    progress: Callable[[int], None] | None = None,
) -> Coupled:
    """As `couple_counted` with the cpu engine, against a support in parts that may lie in other processes.

    At τ = 1 the sources are those of the cpu engine, bit for bit, however the support is split. At τ ≠ 1 the sums of
    the parts are floats, and the split may show in their last bits.

    Args:
        support: the parts, such as `pairflow.coupling.parts.LocalParts`, of what `support_rows` chooses.
        spec: of kind "closed_form", the one that walks against a support.
        rows_per_batch: rows that are walked together; each takes as many bytes as the support has rows.

    Raises:
        SpecError: as `couple`, a spec of another kind, or parts of a type that does not hold every token.
    """
    spec = check_spec(spec)
    if spec.kind != "closed_form":
        raise SpecError(
            f"spec.kind: got {spec.kind!r}, expected 'closed_form', the kind that walks against a support; use couple"
        )
    vocab_size = check_integer(vocab_size, "vocab_size", 2, 2**32)
    rows_per_batch = check_integer(rows_per_batch, "rows_per_batch", 1)
    tokens = check_tokens(target, "target", vocab_size)
    dtype = check_dtype(target, vocab_size)
    if isinstance(support, LocalParts):  # the types of parts elsewhere are not known here
        support.check(vocab_size)
    ids = check_keys(sample_ids, "sample_ids", np.arange(len(tokens), dtype=np.uint64))
    copies = check_keys(replicas, "replicas", np.zeros(len(tokens), np.uint64), limit=MAX_REPLICAS)
    coupled = importlib.import_module("pairflow.coupling.batches").couple_batches(
        tokens,
        support,
        vocab_size=vocab_size,
        spec=spec,
        sample_ids=ids,
        replicas=copies,
        rows_per_batch=rows_per_batch,
        device="cpu",
        progress=progress,
    )
    return replace(coupled, source=coupled.source.astype(dtype, copy=False))


def support_rows(points: NDArray[Any], spec: "CouplingSpec") -> NDArray[Any]:
    """The rows of `points` that the posterior is taken over: all, or the seeded subset of `spec.support_size` rows.

    Those with the smallest draws are taken: for one seed, subsets are nested in each other.
    """
    if spec.support_size is None or spec.support_size >= len(points):
        return points
    return points[_subset(spec.seed, len(points), spec.support_size)]


@functools.lru_cache(maxsize=1)  # a worker makes shard after shard of one coupling, and 10^7 draws take a second
def _subset(seed: int, num_rows: int, size: int) -> NDArray[np.int64]:
    """The rows with the smallest draws, of equal ones the first: [size] row numbers, ascending, read-only."""
    draws = draw_one_each(seed, np.arange(num_rows), 0, Purpose.SUBSET)
    largest = np.partition(draws, size - 1)[size - 1]
    below, level = np.flatnonzero(draws < largest), np.flatnonzero(draws == largest)
    chosen = np.sort(np.concatenate([below, level[: size - len(below)]]))
    chosen.flags.writeable = False
    return chosen


def resolve_engine(engine: str, spec: "CouplingSpec") -> str:
    """The engine that `engine` means for `spec` on this machine.

    Raises:
        SpecError: no engine has this name, or that one cannot do this kind.
    """
    if spec.kind == "assignment":
        if engine in ("auto", "cpu", "assignment"):
            return "assignment"
        raise SpecError(f"engine: got {engine!r}, and coupling 'assignment' runs on the CPU; expected 'auto' or 'cpu'")
    if engine == "auto":
        return "cuda" if _has_gpu() else "cpu"
    if engine not in ENGINES:
        raise SpecError(f"engine: got {engine!r}, expected 'auto' or one of {', '.join(ENGINES)}")
    return engine


def engine_version(name: str) -> str:
    """Name and version of an engine, such as 'cpu/1', as it enters a coupling's fingerprint."""
    return f"{name}/{VERSIONS[name]}"


def _has_gpu() -> bool:
    """Whether torch can use a CUDA device; torch, which takes seconds to load, is not loaded to find that none is."""
    if "torch" not in sys.modules and not any(map(os.path.exists, _DRIVERS)):
        return False
    if importlib.util.find_spec("torch") is None:
        return False
    return bool(importlib.import_module("torch").cuda.is_available())


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
