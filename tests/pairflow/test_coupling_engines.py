"""The cpu engine against the dense one on supports of some hundred rows, on statistics of many walks of one row."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pairflow.coupling import couple
from pairflow.coupling.kernels import draw_levels
from pairflow.datasets import load
from pairflow.spec import CouplingSpec, DatasetSpec

NUM_WALKS = 12_000
FALSE_ALARM = 1e-4  # of each parametrised case, shared evenly by all its comparisons; seeds are fixed

# K, D, M, T, τ; two of three rows are noisy copies of a few centres: posteriors are neither flat nor sharp
CASES = [
    (2, 24, 300, 10, 1.0),
    (2, 24, 300, 10, 1.5),
    # 16-bit counts, and more levels than are counted singly
    pytest.param(2, 260, 100, 6, 1.0, marks=pytest.mark.slow),
    (3, 12, 200, 8, 1.0),
    (43, 10, 300, 10, 1.0),
    (43, 10, 300, 10, 0.7),
    (256, 6, 150, 8, 1.0),
    pytest.param(5000, 3, 40, 5, 1.0, marks=pytest.mark.slow),
]


def clustered_support(vocab_size: int, length: int, num_rows: int) -> np.ndarray:
    rng = np.random.default_rng(vocab_size)
    centres = rng.integers(0, vocab_size, (4, length))
    rows = centres[rng.integers(0, 4, num_rows)]
    noisy = rng.random(rows.shape) < 0.3
    rows[noisy] = rng.integers(0, vocab_size, noisy.sum())
    rows[::3] = rng.integers(0, vocab_size, (len(rows[::3]), length))
    rows[7] = rows[1]  # a duplicate
    return rows.astype(np.uint16)


@pytest.mark.parametrize(("vocab_size", "length", "num_rows", "num_steps", "temperature"), CASES)
def test_cpu_agrees_with_dense(vocab_size, length, num_rows, num_steps, temperature):
    support = clustered_support(vocab_size, length, num_rows)
    assert_engines_agree(support, vocab_size, num_steps, temperature)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "num_rows", "num_steps", "positions"),
    [("digits", 300, 10, slice(None)), ("nci", 250, 6, slice(None)), ("patches", 250, 6, slice(0, 12))],
)
def test_cpu_agrees_with_dense_on_real_data(name, num_rows, num_steps, positions, tmp_path):
    """K = 2, 60 and 256; of the patches a dozen pixels, as the dense engine's tables grow with D·K."""
    part = load(DatasetSpec(name=name), cache_dir=tmp_path, progress=False).part("train")
    support = np.ascontiguousarray(part.tokens[:num_rows, positions])
    assert_engines_agree(support, part.vocab_size, num_steps, temperature=1.0)


def assert_engines_agree(support: np.ndarray, vocab_size: int, num_steps: int, temperature: float) -> None:
    """Keep rates, Hamming distances and pairwise correlations of NUM_WALKS walks of row 1 by either engine."""
    length = support.shape[1]
    start = np.repeat(support[1:2], NUM_WALKS, axis=0)
    kept = {}
    for seed, engine in enumerate(("cpu", "dense")):  # different seeds: the samples are independent
        spec = CouplingSpec(num_steps=num_steps, seed=seed, temperature=temperature)
        source = couple(start, support, vocab_size=vocab_size, spec=spec, engine=engine, num_threads=1)
        kept[engine] = source == start
    num_pairs = length * (length - 1) // 2
    level = FALSE_ALARM / (length + 1 + num_pairs)

    for i in range(length):  # keep rate of each position
        table = [[k[:, i].sum(), NUM_WALKS - k[:, i].sum()] for k in kept.values()]
        assert stats.fisher_exact(table).pvalue > level, f"keep rate at position {i}: {table}"

    hamming = [length - k.sum(1) for k in kept.values()]  # distribution of the Hamming distance
    distances = np.array([np.bincount(h, minlength=length + 1) for h in hamming])
    distances = distances[:, distances.sum(0) > 0]
    assert stats.chi2_contingency(distances).pvalue > level

    upper = np.triu_indices(length, 1)  # pairwise correlations: Fisher's z of each, difference over √(2/(n−3))
    z = [np.arctanh(np.corrcoef(k.T.astype(float))[upper]) for k in kept.values()]
    worst = np.abs(z[0] - z[1]).max() / np.sqrt(2 / (NUM_WALKS - 3))
    assert 2 * stats.norm.sf(worst) > level


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_levels_are_drawn_from_the_whole_posterior(data):
    """Stopping early must not change a single draw: compare with the full cumulative sum."""
    length = data.draw(st.sampled_from([1, 5, 32, 300]))
    num_rows = data.draw(st.integers(1, 400))
    gamma = data.draw(st.floats(1.05, 1e6))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    spread = data.draw(st.integers(1, length + 1))
    counts = rng.integers(0, spread, num_rows).astype(np.uint8 if length < 256 else np.uint16)
    own_level = data.draw(st.integers(-1, length))  # a row that the support does not hold
    units = rng.random(6)
    histogram, cumulative = np.zeros(length + 1, np.int64), np.zeros(length + 1)
    levels = np.empty(len(units), np.int64)
    by_block = np.empty((12, 1), np.int64)
    assert draw_levels(counts, own_level, gamma, units, histogram, by_block, cumulative, levels) == max(
        counts.max(), own_level
    )

    numbers = np.bincount(counts, minlength=length + 1)
    numbers[own_level] += own_level >= 0
    exponents = np.arange(length + 1) - max(int(counts.max()), own_level)
    weights = numbers * np.exp(np.longdouble(exponents) * np.log(np.longdouble(gamma)))
    from_the_top = np.cumsum(weights[::-1])
    for unit, level in zip(units, levels, strict=True):
        expected = length - np.searchsorted(from_the_top, unit * from_the_top[-1], side="right")
        assert level == expected
        assert histogram[level] == numbers[level]
