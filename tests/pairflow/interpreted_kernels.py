"""Triton's kernels in Triton's interpreter; `test_triton_kernels.py` runs this file in a process of its own.

TRITON_INTERPRET=1 must be set before triton is imported, and stays for the process.
"""

import numpy as np
import pytest
import torch

from pairflow.coupling import couple_counted, couple_in_parts, torch_kernels, triton_kernels
from pairflow.coupling.kernel_check import disagreement
from pairflow.coupling.parts import LocalParts, part_slices
from pairflow.coupling.tensor_part import TensorPart, columns_of
from pairflow.spec import CouplingSpec

CPU = torch.device("cpu")


def noisy_copies(vocab_size: int, num_rows: int, length: int) -> np.ndarray:
    rng = np.random.default_rng(vocab_size)
    centres = rng.integers(0, vocab_size, (3, length))
    rows = centres[rng.integers(0, 3, num_rows)]
    noisy = rng.random(rows.shape) < 0.4
    rows[noisy] = rng.integers(0, vocab_size, noisy.sum())
    return rows.astype(np.min_scalar_type(vocab_size - 1))


@pytest.mark.parametrize(
    ("vocab_size", "num_rows", "length"),
    [(43, 4_100, 5), (2, 40, 260), (60_000, 1_025, 3), (2**32, 40, 2), (2, 1, 1)],
)
def test_each_kernel_does_what_torch_does(vocab_size, num_rows, length):
    """Tokens of 1, 2 and 4 bytes, some that look negative to torch; counts of 1 and 2 bytes; one chunk and two."""
    assert disagreement(triton_kernels, torch_kernels, noisy_copies(vocab_size, num_rows, length), CPU) is None


@pytest.mark.parametrize("temperature", [1.0, 0.5])
@pytest.mark.parametrize(("vocab_size", "num_rows", "length"), [(43, 150, 12), (300, 900, 5)])
def test_walks_are_those_of_the_cpu_engine(vocab_size, num_rows, length, temperature):
    support = noisy_copies(vocab_size, num_rows, length)
    spec = CouplingSpec(num_steps=3, seed=5, temperature=temperature)
    expected = couple_counted(support[:7], support[2:], vocab_size=vocab_size, spec=spec, engine="cpu")
    parts = [TensorPart(columns_of(support[2:][rows], CPU), triton_kernels) for rows in part_slices(num_rows - 2, 2)]
    got = couple_in_parts(
        support[:7], LocalParts(parts, num_rows - 2, CPU), vocab_size=vocab_size, spec=spec, rows_per_batch=4
    )
    np.testing.assert_array_equal(got.source, expected.source)
    np.testing.assert_array_equal(got.num_scans, expected.num_scans)
