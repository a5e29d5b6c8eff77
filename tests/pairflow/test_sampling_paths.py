"""Paths from source to sample: counts by hand, on states written down; and an observer that changes nothing."""

import numpy as np
import pytest
import torch

from pairflow.processes import build
from pairflow.sampling import Paths, sample
from pairflow.spec import SamplingSpec

from .exact_denoiser import LENGTH, POINTS, VOCAB_SIZE, exact_model


def draw(name, final_step="greedy", **options):
    process = build(name, VOCAB_SIZE)
    settings = {"num_samples": 30, "num_steps": 5, "length": LENGTH, "device": "cpu", "progress": False}
    spec = SamplingSpec(final_step=final_step)
    return sample(exact_model(process, POINTS), process, spec, **{**settings, **options}).tokens


def test_changes_and_distances_by_hand():
    paths = Paths(kept=1)
    batches = [
        ([[0, 0, 0], [1, 1, 1]], [[0, 2, 0], [1, 1, 1]], [[0, 0, 1], [1, 1, 2]]),  # 1, then 3 changes; 2 apart
        ([[2, 2, 2]], [[1, 1, 1]], [[1, 1, 1]]),  # 3 changes; 3 apart
    ]
    for number, states in enumerate(batches):
        for step, state in enumerate(states):
            paths(np.arange(len(state)) + 2 * number, step, torch.tensor(state))
    assert (paths.num_samples, paths.changes, paths.hamming) == (3, 7, 5)
    assert paths.mean_hamming == pytest.approx(5 / 3)
    assert paths.straightness == pytest.approx(5 / 7)
    assert [state.tolist() for state in paths.states] == [[[0, 0, 0]], [[0, 2, 0]], [[0, 0, 1]]]


def test_paths_on_which_nothing_moves_have_no_straightness():
    paths = Paths()
    for step in range(3):
        paths(np.arange(2), step, torch.ones(2, 4, dtype=torch.int64))
    assert paths.straightness is None
    assert paths.mean_hamming == 0


@pytest.mark.parametrize("name", ["uniform", "absorbing"])
@pytest.mark.parametrize("final_step", ["ancestral", "greedy"])
def test_an_observer_changes_no_draw_and_sees_every_state(name, final_step):
    alone = draw(name, final_step)
    seen = []
    tokens = draw(
        name, final_step, observer=lambda ids, step, x_t: seen.append((ids, step, x_t.clone())), batch_size=30
    )
    np.testing.assert_array_equal(tokens, alone)
    assert [step for _, step, _ in seen] == list(range(6 + (final_step == "greedy")))
    np.testing.assert_array_equal(seen[0][2], build(name, VOCAB_SIZE).keyed_source(0, np.arange(30), LENGTH))
    np.testing.assert_array_equal(seen[-1][2], alone)


def test_counts_are_those_of_the_states_whatever_the_batch():
    seen = []
    draw("uniform", observer=lambda ids, step, x_t: seen.append(x_t.clone()), batch_size=30)
    states = torch.stack(seen)
    for batch_size in (30, 7):
        paths = Paths(kept=4)
        draw("uniform", observer=paths, batch_size=batch_size)
        assert paths.changes == int((states[1:] != states[:-1]).sum())
        assert paths.hamming == int((states[0] != states[-1]).sum())
        np.testing.assert_array_equal(np.stack(paths.states), states[:, :4])
        assert paths.straightness is not None
        assert 0 < paths.straightness < 1


def test_masked_paths_are_straight():
    """MDLM changes every token once, from the mask to what stays: D changes a sample, D apart."""
    paths = Paths()
    draw("absorbing", observer=paths)
    assert paths.straightness == 1
    assert paths.mean_hamming == LENGTH
