"""What else a CouplingSpec can ask for: skipped scans, a subset of the support, rows outside it, replicas."""

import numpy as np
import pytest
import torch
from scipy import stats

from pairflow.coupling import couple, couple_counted, couple_in_parts, support_rows
from pairflow.coupling.parts import LocalParts
from pairflow.errors import SpecError
from pairflow.rng import Purpose, draw_one_each, draw_pairs
from pairflow.spec import CouplingSpec

RNG = np.random.default_rng(0)
FAR_APART = RNG.integers(0, 50, (60, 400)).astype(np.uint8)  # random rows: each dominates its own posterior for long


def test_skipped_scans_change_nothing():
    """A difference would be a false alarm with probability below 60 rows · 1e-9."""
    spec = CouplingSpec()
    skipping = couple_counted(FAR_APART, vocab_size=50, spec=spec)
    scanning = couple_counted(FAR_APART, vocab_size=50, spec=spec.model_copy(update={"epsilon": 0.0}))
    np.testing.assert_array_equal(skipping.source, scanning.source)
    assert (scanning.num_scans == 19).all()
    assert skipping.num_scans.max() <= 12


def test_no_step_is_skipped_where_a_neighbour_is_near():
    rows = FAR_APART.copy()
    rows[1] = rows[0]
    rows[1, 0] = (rows[0, 0] + 1) % 50  # one token away
    num_scans = couple_counted(rows, vocab_size=50, spec=CouplingSpec()).num_scans
    assert num_scans[:2].min() >= 18
    assert num_scans[2:].max() <= 12


def test_a_single_row_never_needs_a_scan():
    assert couple_counted(FAR_APART[:1], vocab_size=50, spec=CouplingSpec(epsilon=0)).num_scans[0] == 0


@pytest.mark.parametrize("engine", ["cpu", "dense"])
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_a_row_outside_the_support_is_one_more_row_of_it(engine, temperature):
    """Same law as with the row appended: keep rates of 5,000 walks, 12 Fisher tests at 1e-6, fixed seeds."""
    support = RNG.integers(0, 4, (40, 12)).astype(np.uint8)
    start = np.repeat(support[:1], 5_000, axis=0)
    kept = []
    for seed, points, by in ((1, support[1:], engine), (2, np.roll(support, 5, axis=0), "cpu")):
        spec = CouplingSpec(num_steps=6, seed=seed, temperature=temperature)
        rows = start if by == "cpu" else start[:500]  # dense makes a support for each such row
        kept.append(couple(rows, points, vocab_size=4, spec=spec, engine=by) == rows)
    for i in range(12):
        table = [[k[:, i].sum(), (~k[:, i]).sum()] for k in kept]
        assert stats.fisher_exact(table).pvalue > 1e-6


def test_a_subset_of_the_support_is_seeded_and_contains_the_row_itself():
    support = RNG.integers(0, 3, (200, 10)).astype(np.uint8)
    spec = CouplingSpec(num_steps=8, support_size=20)
    source = couple(support, vocab_size=3, spec=spec)
    assert not np.array_equal(source, couple(support, vocab_size=3, spec=CouplingSpec(num_steps=8)))
    np.testing.assert_array_equal(
        source[50:60], couple(support[50:60], support, vocab_size=3, spec=spec, sample_ids=np.arange(50, 60))
    )
    # With one row of support besides itself, far from every other row: the walk is that of a single data point.
    far = CouplingSpec(num_steps=8, support_size=1)
    alone = CouplingSpec(num_steps=8)
    for row in (0, 7):
        own = couple(FAR_APART[row : row + 1], vocab_size=50, spec=alone, sample_ids=[row])
        among = couple(FAR_APART[row : row + 1], FAR_APART, vocab_size=50, spec=far, sample_ids=[row])
        agreement = (own == among).mean()
        assert agreement > 0.9


@pytest.mark.parametrize("levels", [2**53, 7])
def test_a_subset_is_of_the_rows_with_the_smallest_draws(monkeypatch, levels):
    """As a stable sort has them, also among equal draws, of which 53 bits leave none."""
    rows = np.arange(1000, dtype=np.uint16)[:, None]

    def coarse(*key):
        return np.floor(draw_one_each(*key) * levels)

    monkeypatch.setattr("pairflow.coupling.draw_one_each", coarse)
    for size in (1, 20, 999):
        spec = CouplingSpec(seed=levels % 1000 + size, support_size=size)
        draws, _ = draw_pairs(spec.seed, rows[:, 0], 0, 1, Purpose.SUBSET)
        chosen = np.argsort(np.floor(draws[:, 0] * levels), kind="stable")[:size]
        np.testing.assert_array_equal(support_rows(rows, spec)[:, 0], np.sort(chosen))


def test_a_subset_as_large_as_the_support_is_the_support():
    support = RNG.integers(0, 3, (30, 10)).astype(np.uint8)
    whole = couple(support, vocab_size=3, spec=CouplingSpec())
    for size in (30, 31):
        np.testing.assert_array_equal(whole, couple(support, vocab_size=3, spec=CouplingSpec(support_size=size)))


@pytest.mark.parametrize("kind", ["closed_form", "independent"])
@pytest.mark.parametrize("engine", ["cpu", "dense"])
def test_replicas_are_sources_of_their_own(kind, engine):
    spec = CouplingSpec(kind=kind, num_steps=5)
    rows = FAR_APART[:30, :40]
    first = couple(rows, vocab_size=50, spec=spec, engine=engine)
    both = couple(
        np.tile(rows, (2, 1)),
        rows,
        vocab_size=50,
        spec=spec,
        sample_ids=np.tile(np.arange(30), 2),
        replicas=np.repeat([0, 1], 30),
        engine=engine,
    )
    np.testing.assert_array_equal(both[:30], first)
    assert (both[30:] != first).any(axis=1).all()


@pytest.mark.parametrize("replicas", [[4096], [-1], [0.5], [0, 0]])
def test_replicas_must_be_numbers_below_4096(replicas):
    with pytest.raises(SpecError, match="replicas: got"):
        couple(FAR_APART[:1], vocab_size=50, spec=CouplingSpec(), replicas=replicas)


@pytest.mark.parametrize(
    ("update", "says"),
    [
        ({"kind": "independant"}, "kind: "),
        ({"num_steps": 0}, "num_steps: .*greater than or equal to 1"),
        ({"seed": -1}, "seed: .*greater than or equal to 0"),
        ({"temperature": 0.0}, "temperature: .*greater than 0"),
        ({"block_size": 8}, "block_size can only be given for coupling 'assignment'"),
    ],
)
def test_a_copy_with_updates_is_checked(update, says):
    spec = CouplingSpec().model_copy(update=update)
    with pytest.raises(SpecError, match=says):
        couple(FAR_APART[:2], vocab_size=50, spec=spec, engine="cpu")
    with pytest.raises(SpecError, match=says):
        couple_in_parts(FAR_APART[:2], LocalParts([], 2, torch.device("cpu")), vocab_size=50, spec=spec)


@pytest.mark.parametrize("kind", ["independent", "assignment"])
def test_parts_are_for_the_walk_alone(kind):
    with pytest.raises(SpecError, match=rf"spec\.kind: got '{kind}', expected 'closed_form'"):
        couple_in_parts(
            FAR_APART[:2], LocalParts([], 2, torch.device("cpu")), vocab_size=50, spec=CouplingSpec(kind=kind)
        )
