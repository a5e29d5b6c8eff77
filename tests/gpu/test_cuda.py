"""The cuda engine on a real GPU: kernel by kernel, bit for bit on small sizes, and on distributions on larger ones.

Imports only numpy, torch, triton, numba and pytest, so that it runs on a bare machine that has a GPU:

    python -m pytest tests/gpu
"""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from pairflow.coupling import couple, couple_counted, cuda, resolve_engine, torch_kernels
from pairflow.coupling.kernel_check import disagreement

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is there")


@dataclass(frozen=True)
class Spec:
    """The fields of `pairflow.spec.CouplingSpec`, which needs pydantic."""

    num_steps: int = 20
    seed: int = 0
    temperature: float = 1.0
    epsilon: float = 1e-9
    kind: str = "closed_form"
    support_size: int | None = None


def noisy_copies(vocab_size: int, num_rows: int, length: int, num_centres: int = 4) -> np.ndarray:
    rng = np.random.default_rng(vocab_size)
    centres = rng.integers(0, vocab_size, (num_centres, length))
    rows = centres[rng.integers(0, num_centres, num_rows)]
    noisy = rng.random(rows.shape) < 0.6 * rng.random((num_rows, 1))
    rows[noisy] = rng.integers(0, vocab_size, noisy.sum())
    return rows.astype(np.min_scalar_type(vocab_size - 1))


# K, M, D: tokens of 1, 2 and 4 bytes, counts of 1 and 2 bytes, one chunk and several
SIZES = [(43, 9_000, 32), (2, 3_000, 784), (300, 6_000, 9), (70_000, 500, 40), (256, 300, 3072), (5, 1, 1), (2, 40, 1)]


@pytest.mark.parametrize(("vocab_size", "num_rows", "length"), SIZES)
def test_triton_counts_as_torch_does(vocab_size, num_rows, length):
    triton_kernels = pytest.importorskip("pairflow.coupling.triton_kernels")
    rows = noisy_copies(vocab_size, num_rows, length)
    assert disagreement(triton_kernels, torch_kernels, rows, torch.device("cuda")) is None


@pytest.mark.parametrize("temperature", [1.0, 0.5])
@pytest.mark.parametrize(("vocab_size", "num_rows", "length"), SIZES)
def test_bytes_are_those_of_the_cpu_engine(vocab_size, num_rows, length, temperature):
    support = noisy_copies(vocab_size, num_rows, length)
    spec = Spec(num_steps=8, seed=3, temperature=temperature)
    some = support[:200]
    for points in (support, support[1:]) if num_rows > 1 else (support,):  # the second: row 0 may be outside
        expected = couple_counted(some, points, vocab_size=vocab_size, spec=spec, engine="cpu")
        got = couple_counted(some, points, vocab_size=vocab_size, spec=spec, engine="cuda")
        np.testing.assert_array_equal(got.source, expected.source)
        np.testing.assert_array_equal(got.num_scans, expected.num_scans)


@pytest.mark.parametrize("rows_per_batch", [1, 64, 1000])
def test_batches_and_the_kernels_chosen_do_not_show(rows_per_batch, monkeypatch):
    support = noisy_copies(43, 300, 32)
    arguments = {
        "vocab_size": 43,
        "spec": Spec(),
        "sample_ids": np.arange(300, dtype=np.uint64),
        "replicas": np.zeros(300, np.uint64),
        "rows_per_batch": rows_per_batch,
    }
    chosen = cuda.couple_on(torch.device("cuda"), support, support, **arguments).source
    monkeypatch.setattr(cuda, "choose_kernels", lambda *_: torch_kernels)
    fallback = cuda.couple_on(torch.device("cuda"), support, support, **arguments).source
    np.testing.assert_array_equal(chosen, fallback)


def test_a_larger_set_has_the_distribution_of_the_cpu_engine():
    """Keep rate of each position and mean Hamming distance over 20,000 rows; 33 tests at 5 σ: false alarm 2e-5."""
    support = noisy_copies(43, 20_000, 32, num_centres=200)
    kept = [
        couple(support, vocab_size=43, spec=Spec(seed=seed), engine=engine) == support
        for seed, engine in ((1, "cpu"), (2, "cuda"))
    ]
    rates = [k.mean(0) for k in kept]
    error = np.sqrt(sum(rate * (1 - rate) for rate in rates) / len(support))
    assert (np.abs(rates[0] - rates[1]) < 5 * error).all()
    hamming = [32 - k.sum(1) for k in kept]
    error = np.sqrt(sum(h.var() for h in hamming) / len(support))
    assert abs(hamming[0].mean() - hamming[1].mean()) < 5 * error


def test_auto_is_this_engine():
    assert resolve_engine("auto", Spec()) == "cuda"
