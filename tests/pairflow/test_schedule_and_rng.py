"""Schedules against their definitions; the generator against its published vectors and against statistics."""

import numpy as np
import pytest
from scipy import stats

from pairflow.rng import Purpose, draw_pairs, philox4x32, uniform_draws, uniform_tokens
from pairflow.schedule import backward_times, flip_ceiling, gamma

# Known answers of Philox4x32-10 from the Random123 distribution (kat_vectors): counter, key, output.
KNOWN_ANSWERS = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "output"), KNOWN_ANSWERS)
def test_philox_gives_the_published_words(counter, key, output):
    words = philox4x32(counter, key[0] | key[1] << 32)
    assert tuple(int(word) for word in words) == output


@pytest.mark.parametrize("seed", [0, 1, 2**32, 2**63 - 1])
@pytest.mark.parametrize("sample", [0, 7, 2**32 + 5, 2**63])
def test_the_scalar_generator_of_the_cpu_engine_draws_the_same(seed, sample):
    from pairflow.coupling.kernels import draw

    for purpose, step in ((Purpose.MOVE, 0), (Purpose.REPLACE, 65_534)):
        first, second = draw_pairs(seed, np.array([sample], np.uint64), step, 9, purpose)
        word = np.uint64(step | purpose << 28)
        drawn = [draw(np.uint64(seed), np.uint64(sample), word, i) for i in range(9)]
        np.testing.assert_array_equal(np.array(drawn), np.stack([first[0], second[0]], axis=1))


def test_a_draw_depends_on_its_key_only():
    ids = np.arange(50, dtype=np.uint64)
    whole = uniform_draws(3, ids, step=4, length=11)
    np.testing.assert_array_equal(whole[17:23], uniform_draws(3, ids[17:23], step=4, length=11))
    np.testing.assert_array_equal(whole[:, :5], uniform_draws(3, ids, step=4, length=5))
    for other in (
        uniform_draws(4, ids, 4, 11),
        uniform_draws(3, ids + 50, 4, 11),
        uniform_draws(3, ids, 5, 11),
    ):
        assert not np.any(other == whole)


def test_draws_are_uniform_and_uncorrelated():
    """Kolmogorov-Smirnov and correlations; 8 tests at 1e-5 each: false alarm below 1e-4, fixed seed."""
    first, second = draw_pairs(0, np.arange(20_000), 1, 4, Purpose.MOVE)
    for draws in (*first.T, *second.T[:2]):
        assert stats.kstest(draws, "uniform").pvalue > 1e-5
    assert stats.pearsonr(first[:, 0], second[:, 0]).pvalue > 1e-5
    assert stats.pearsonr(first[:-1, 0], first[1:, 0]).pvalue > 1e-5


@pytest.mark.parametrize("vocab_size", [2, 3, 43, 50_257])
def test_source_tokens_are_uniform_over_the_vocabulary(vocab_size):
    """Chi-square over at most 50 bins; false alarm 1e-5 for each K, fixed seed."""
    tokens = uniform_tokens(5, np.arange(5_000), 20, vocab_size)
    assert tokens.min() >= 0
    assert tokens.max() < vocab_size
    edges = np.linspace(0, vocab_size, min(vocab_size, 50) + 1).round()
    observed, _ = np.histogram(tokens, edges)
    assert stats.chisquare(observed, tokens.size * np.diff(edges) / vocab_size).pvalue > 1e-5


def test_gamma_is_the_odds_of_a_matching_token():
    # x_t = x_1 with probability κ, else uniform: odds of the own token against one given other one
    for kappa, vocab_size in ((0.3, 2), (0.95, 43), (0.05, 5000)):
        own, other = kappa + (1 - kappa) / vocab_size, (1 - kappa) / vocab_size
        assert gamma(kappa, vocab_size) == pytest.approx(own / other)


def test_the_walk_has_steps_from_the_data_to_one_step_before_the_source():
    assert backward_times(4) == [1.0, 0.75, 0.5, 0.25]


@pytest.mark.parametrize("num_steps", [1, 2, 20, 1000])
@pytest.mark.parametrize("vocab_size", [2, 43, 65_536])
def test_the_ceiling_is_a_probability(num_steps, vocab_size):
    ceilings = [flip_ceiling(t, 1.0, 1 / num_steps, vocab_size) for t in backward_times(num_steps)]
    assert all(0 < ceiling < 1 for ceiling in ceilings)
    assert ceilings == sorted(ceilings)
