"""The walk in lockstep, against a support in parts of every kind: the cpu engine's bytes, and the dense one's law."""

import subprocess
import sys
from itertools import cycle, islice
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pairflow.coupling import couple, couple_counted, couple_in_parts, engine_version, support_rows, torch_kernels
from pairflow.coupling.cuda import batch_size, couple_on
from pairflow.coupling.kernel_check import disagreement
from pairflow.coupling.numba_part import NumbaPart
from pairflow.coupling.parts import LocalParts, part_slices
from pairflow.coupling.tensor_part import TensorPart, bytes_per_row, columns_of
from pairflow.coupling.torch_rng import draw_units
from pairflow.errors import SpecError
from pairflow.rng import REPLICA_SHIFT, Purpose, draw_pairs
from pairflow.spec import CouplingSpec

CPU = torch.device("cpu")


def tensor_part(rows: np.ndarray) -> TensorPart:
    return TensorPart(columns_of(rows, CPU), torch_kernels)


def numba_part(rows: np.ndarray) -> NumbaPart:
    return NumbaPart(rows.T)


def split(support: np.ndarray, num_parts: int, kinds=(tensor_part, numba_part)) -> LocalParts:
    """Consecutive parts, of one kind and the other by turns."""
    slices = part_slices(len(support), num_parts)
    parts = [kind(support[rows]) for rows, kind in zip(slices, islice(cycle(kinds), len(slices)), strict=True)]
    return LocalParts(parts, len(support), CPU)


def noisy_copies(rng: np.random.Generator, vocab_size: int, num_rows: int, length: int) -> np.ndarray:
    """Rows near a few centres, some of them duplicates: posteriors that are neither flat nor sharp."""
    centres = rng.integers(0, vocab_size, (4, length))
    rows = centres[rng.integers(0, 4, num_rows)]
    noisy = rng.random(rows.shape) < 0.3 * rng.random((num_rows, 1))
    rows[noisy] = rng.integers(0, vocab_size, noisy.sum())
    return rows.astype(np.min_scalar_type(vocab_size - 1))


def assert_same(got, expected) -> None:
    np.testing.assert_array_equal(got.source, expected.source)
    np.testing.assert_array_equal(got.num_scans, expected.num_scans)


@pytest.mark.parametrize("seed", [0, 2**32 + 1, 2**63 - 1])
def test_draws_are_those_of_the_library(seed):
    ids = np.array([0, 7, 2**32 - 1, 2**32 + 5, 2**63, 2**64 - 1], np.uint64)
    replicas = np.array([0, 1, 4095, 3, 0, 9], np.uint64)
    words = torch.from_numpy((replicas << np.uint64(REPLICA_SHIFT)).astype(np.int64))[:, None]
    for step, purpose in ((0, Purpose.MOVE), (65_534, Purpose.REPLACE)):
        expected = draw_pairs(seed, ids, step, 300, purpose, replicas)
        keys = torch.from_numpy(ids.astype(np.int64))[:, None]
        drawn = draw_units(seed, keys, words, step, torch.arange(300)[None], purpose)
        np.testing.assert_array_equal(torch.stack(drawn).numpy(), np.stack(expected))


@pytest.mark.slow
@given(st.data())
@settings(max_examples=80, deadline=None)
def test_any_number_of_parts_gives_the_bytes_of_the_cpu_engine(data):
    """At τ ≠ 1 a difference in the last bit of a sum would show with a probability of some 10^-15 a draw."""
    vocab_size = data.draw(st.sampled_from([2, 3, 43, 256, 257, 5_000, 70_000]))
    length = data.draw(st.sampled_from([1, 2, 9, 32, 255, 256, 300]))
    num_rows = data.draw(st.integers(1, 120))
    spec = CouplingSpec(
        num_steps=data.draw(st.integers(1, 24)),
        seed=data.draw(st.integers(0, 2**63 - 1)),
        temperature=data.draw(st.sampled_from([1.0, 1.0, 0.4, 2.5])),
        epsilon=data.draw(st.sampled_from([0.0, 1e-9, 1e-3])),
        support_size=data.draw(st.sampled_from([None, None, 1, 50])),
    )
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    rows = noisy_copies(rng, vocab_size, num_rows, length)
    rows[rng.integers(num_rows)] = rows[0]
    target = rows[rng.permutation(num_rows)[:25]]
    support = rows[data.draw(st.integers(0, 1)) if num_rows > 1 else 0 :]  # at 1, row 0 may be outside
    keys: dict[str, Any] = {
        "sample_ids": rng.integers(0, 2**40, len(target)),
        "replicas": rng.integers(0, 4096, len(target)),
    }
    expected = couple_counted(target, support, vocab_size=vocab_size, spec=spec, engine="cpu", **keys)
    parts = split(support_rows(support, spec), data.draw(st.integers(1, 4)))
    got = couple_in_parts(
        target, parts, vocab_size=vocab_size, spec=spec, rows_per_batch=data.draw(st.sampled_from([1, 7, 256])), **keys
    )
    assert_same(got, expected)


@pytest.mark.parametrize("kind", [tensor_part, numba_part])
@pytest.mark.parametrize(
    ("num_rows", "length", "vocab_size", "num_steps"),
    [
        (13_000, 4, 3, 12),  # several chunks of thousands of rows at one level
        (5_000, 260, 4, 4),  # 16-bit counts, and larger chunks
        (3, 40_000, 2, 3),  # 32-bit counts
        (1, 1, 2, 1),
    ],
)
def test_sizes_beyond_one_chunk_and_one_count_type(kind, num_rows, length, vocab_size, num_steps):
    support = noisy_copies(np.random.default_rng(1), vocab_size, num_rows, length)
    spec = CouplingSpec(num_steps=num_steps, seed=8, epsilon=0)
    expected = couple_counted(support[:50], support, vocab_size=vocab_size, spec=spec, engine="cpu")
    for num_parts in (1, 3):
        assert_same(
            couple_in_parts(support[:50], split(support, num_parts, [kind]), vocab_size=vocab_size, spec=spec), expected
        )


def test_parts_follow_the_law_of_the_dense_engine():
    """12,000 walks of one row by either: keep rates and Hamming distances, 9 tests at 1e-5, fixed seeds."""
    support = noisy_copies(np.random.default_rng(2), 43, 150, 8)
    start = np.repeat(support[1:2], 12_000, axis=0)
    walked = couple_in_parts(start, split(support, 3), vocab_size=43, spec=CouplingSpec(num_steps=6, seed=1))
    dense = couple(start, support, vocab_size=43, spec=CouplingSpec(num_steps=6, seed=2), engine="dense", num_threads=1)
    kept = [source == start for source in (walked.source, dense)]
    for i in range(8):
        table = [[k[:, i].sum(), (~k[:, i]).sum()] for k in kept]
        assert stats.fisher_exact(table).pvalue > 1e-5, i
    distances = np.array([np.bincount(k.sum(1), minlength=9) for k in kept])
    assert stats.chi2_contingency(distances[:, distances.sum(0) > 0]).pvalue > 1e-5


@pytest.mark.parametrize("rows_per_batch", [1, 13, 1000])
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_the_gpu_engine_on_a_cpu(rows_per_batch, temperature):
    """All of it but the device: torch's kernels are its fallback."""
    support = noisy_copies(np.random.default_rng(3), 43, 90, 14)
    spec = CouplingSpec(num_steps=6, seed=4, temperature=temperature)
    done: list[int] = []
    got = couple_on(
        CPU,
        support,
        support,
        vocab_size=43,
        spec=spec,
        sample_ids=np.arange(90, dtype=np.uint64),
        replicas=np.zeros(90, np.uint64),
        rows_per_batch=rows_per_batch,
        progress=done.append,
    )
    assert_same(got, couple_counted(support, vocab_size=43, spec=spec, engine="cpu"))
    assert sum(done) == 90


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device: see tests/gpu")
def test_without_a_gpu_the_error_says_what_to_do():
    assert engine_version("cuda") == "cuda/1"
    with pytest.raises(SpecError, match=r"needs a CUDA device .* use engine='cpu'"):
        couple(np.zeros((3, 2), np.uint8), vocab_size=5, spec=CouplingSpec(), engine="cuda")


@pytest.mark.parametrize(("num_rows", "length"), [(126_100, 32), (100_000, 3072), (10**8, 32)])
def test_batches_fit_into_free_memory(num_rows, length):
    few, many = (batch_size(num_rows, length, 1, gigabytes * 2**30) for gigabytes in (16, 140))
    assert 1 <= few <= many <= 32_768
    assert few * bytes_per_row(num_rows, length) + num_rows * length < 16 * 2**30
    with pytest.raises(SpecError, match=r"free GPU memory, got 1\.0 GiB; set PAIRFLOW_SUPPORT_PARTS"):
        batch_size(num_rows, length, 1, 2**30)


def test_a_part_takes_arrays_that_it_must_not_write_to():
    """As they come from another process."""
    states = np.array([[0, 1], [1, 1]])
    states.flags.writeable = False
    for kind in (tensor_part, numba_part):
        histograms = kind(np.array([[0, 1], [1, 0], [0, 0]], np.uint8)).start(states)
        np.testing.assert_array_equal(np.asarray(histograms), [[1, 1, 1], [1, 2, 0]])


class Broken:
    """torch's kernels with one pass that is off by something."""

    def __init__(self, name):
        self._name = name

    def __getattr__(self, name):
        right = getattr(torch_kernels, name)
        if name != self._name:
            return right

        def wrong(*arguments):
            result = right(*arguments)
            if name == "count_matches":
                arguments[2][0, -1] ^= 1
            elif name == "scan":
                arguments[4][-1, -1, 0] += 1
            else:
                result[-1] = result[0] if name == "find" else result[-1] + 1
            return result

        return wrong


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("none", None),
        ("count_matches", "first counts"),
        ("scan", "first counts"),
        ("find", "rows found by rank"),
        ("agreement", "sums of weights"),
    ],
)
def test_kernels_that_miscount_are_found_before_they_are_used(name, found):
    support = noisy_copies(np.random.default_rng(4), 43, 6_000, 14)
    assert disagreement(Broken(name), torch_kernels, support, CPU) == found  # type: ignore[arg-type]


def test_the_engines_need_no_pydantic_and_load_nothing_before_they_are_used():
    """So that they run on a bare machine with a GPU, and `import pairflow` stays quick."""
    code = """
import sys
sys.modules["pydantic"] = None  # an import of it fails
from types import SimpleNamespace
import numpy as np
from pairflow.coupling import couple, resolve_engine
print(sorted({"torch", "triton", "numba"} & set(sys.modules)))
import pairflow.coupling.cuda, pairflow.coupling.kernel_check
spec = SimpleNamespace(kind="closed_form", num_steps=3, seed=0, temperature=1.0, epsilon=0.0, support_size=None)
print(couple(np.zeros((3, 2), np.uint8), vocab_size=2, spec=spec, engine="cpu").shape)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", "(3, 2)"]


@pytest.mark.parametrize(("num_rows", "num_parts"), [(1, 1), (1, 5), (7, 3), (100, 100), (100, 7)])
def test_parts_are_even_runs_of_rows(num_rows, num_parts):
    sizes = [len(range(num_rows)[rows]) for rows in part_slices(num_rows, num_parts)]
    assert np.concatenate([np.arange(num_rows)[rows] for rows in part_slices(num_rows, num_parts)]).tolist() == list(
        range(num_rows)
    )
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) >= 1


@pytest.mark.parametrize("kind", [tensor_part, numba_part])
def test_parts_of_a_type_that_does_not_hold_every_token_are_refused(kind):
    """Token 259 would count as a match of 3, once a walk has come to it."""
    support = np.random.default_rng(0).integers(0, 256, (30, 8), np.uint8)
    target, spec = support.astype(np.uint16), CouplingSpec(num_steps=4)
    with pytest.raises(SpecError, match=r"holds tokens up to 255, expected up to 299 \(vocab_size 300\)"):
        couple_in_parts(target, split(support, 2, [kind]), vocab_size=300, spec=spec)
    whole = couple(target, target, vocab_size=300, spec=spec, engine="cpu")
    np.testing.assert_array_equal(
        couple_in_parts(target, split(target, 2, [kind]), vocab_size=300, spec=spec).source, whole
    )


def test_a_part_of_numbas_refuses_a_token_that_its_type_does_not_hold():
    part = numba_part(np.arange(6, dtype=np.uint8).reshape(3, 2))
    part.start(np.array([[255, 1]]))
    with pytest.raises(SpecError, match="a part of uint8, which cannot be compared with token 256"):
        part.start(np.array([[256, 1]]))
