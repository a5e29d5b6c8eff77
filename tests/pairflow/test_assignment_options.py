"""The coupling by assignment: its spec, and what is refused, said before anything starts."""

import numpy as np
import pytest

from pairflow.coupling import block_memory, couple, resolve_engine
from pairflow.coupling.assignment import check_memory, couple_pairs
from pairflow.errors import SpecError
from pairflow.spec import DEFAULT_BLOCK_SIZE, CouplingSpec, canonical_json, fingerprint, parse

DATA = np.random.default_rng(0).integers(0, 43, (90, 14)).astype(np.uint16)


def spec_of(block_size: int, replicas: int = 1, seed: int = 4) -> CouplingSpec:
    return CouplingSpec(kind="assignment", block_size=block_size, sources_per_target=replicas, seed=seed)


def test_specs_of_other_kinds_keep_their_json_and_fingerprint():
    """Written down before `block_size` was a field."""
    spec = CouplingSpec(kind="independent", seed=3)
    assert canonical_json(spec.model_dump(mode="json")) == (
        '{"epsilon":1e-09,"kind":"independent","num_steps":20,"seed":3,"sources_per_target":1,"support_size":null,'
        '"temperature":1.0}'
    )
    assert fingerprint(CouplingSpec(), dataset="d", engine="cpu/1") == (
        "c98c17b04a8b2d9cef4b4a615b20f79fb08aa8f187a6232544c4a838767d5303"
    )


def test_the_block_size_is_part_of_the_fingerprint():
    default = CouplingSpec(kind="assignment")
    assert default.block_size == DEFAULT_BLOCK_SIZE
    assert default.model_dump(mode="json")["block_size"] == DEFAULT_BLOCK_SIZE
    assert fingerprint(default) == fingerprint(spec_of(DEFAULT_BLOCK_SIZE, seed=0))
    assert fingerprint(default) != fingerprint(spec_of(64, seed=0))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "closed_form", "block_size": 64}, "block_size can only be given for coupling 'assignment', got 'clo"),
        ({"kind": "independent", "block_size": 64}, "only be given for coupling 'assignment', got 'independent'"),
        ({"kind": "assignment", "support_size": 10}, "support_size 10: coupling 'assignment' takes no walk"),
        (
            {"kind": "assignment", "num_steps": 7, "epsilon": 0},
            "num_steps 7 and epsilon 0.0: coupling 'assignment' takes",
        ),
        ({"kind": "assignment", "temperature": 0.5}, "temperature 0.5: coupling 'assignment' takes no walk"),
        ({"kind": "assignment", "block_size": 0}, "block_size: .* greater than or equal to 1"),
        ({"kind": "assignment", "block_size": 2**17 + 1}, "block_size: .* less than or equal to 131072"),
        ({"kind": "assignment", "sources_per_target": 4097}, "sources_per_target: .* less than or equal to 4096"),
    ],
)
def test_options_that_do_not_fit(fields, message):
    with pytest.raises(SpecError, match=message):
        parse(CouplingSpec, fields)


def test_engines():
    assert resolve_engine("auto", spec_of(5)) == resolve_engine("cpu", spec_of(5)) == "assignment"
    with pytest.raises(SpecError, match="'cuda', and coupling 'assignment' runs on the CPU"):
        resolve_engine("cuda", spec_of(5))
    with pytest.raises(SpecError, match="got 'assignment', expected 'auto' or one of"):
        resolve_engine("assignment", CouplingSpec())


def test_targets_that_are_not_rows_of_the_data_are_refused():
    with pytest.raises(SpecError, match="every target must be the row of the support that its sample id names"):
        couple(DATA[5:], DATA, vocab_size=43, spec=spec_of(5))
    with pytest.raises(SpecError, match="every target must be the row of the support"):
        couple(DATA, vocab_size=43, spec=spec_of(5), sample_ids=np.arange(90) + 1)


@pytest.mark.parametrize(("start", "stop"), [(-1, 3), (3, 3), (0, 181)])
def test_pairs_that_there_are_not(start, stop):
    with pytest.raises(SpecError, match=r"expected some of the 180 pairs"):
        couple_pairs(DATA, start, stop, vocab_size=43, spec=spec_of(5, 2))


def test_a_block_beyond_memory_is_refused_with_the_size_that_fits(monkeypatch):
    monkeypatch.setattr(block_memory, "free_memory", lambda: 20_000_000)
    check_memory(4000, 32, spec_of(4000))
    with pytest.raises(SpecError, match=r"blocks of 5,000 rows take .* at most block_size 4,096, which fits"):
        check_memory(5000, 32, spec_of(8192))
    with pytest.raises(SpecError, match="at most block_size 2,048"):
        check_memory(5000, 784, spec_of(8192))  # two bytes a pair
    with pytest.raises(SpecError, match="which fits"):
        couple_pairs(np.zeros((5000, 32), np.uint8), 0, 1, vocab_size=2, spec=spec_of(8192))


def test_memory_bounds_the_blocks_at_a_time(monkeypatch):
    needed = block_memory.block_bytes(20, 14, 1)
    usual = couple_pairs(DATA, 0, 90, vocab_size=43, spec=spec_of(20))
    monkeypatch.setattr(block_memory, "free_memory", lambda: 2 * needed + 1)
    assert block_memory.blocks_that_fit(20, 14, 1) == 2
    pairs = couple_pairs(DATA, 0, 90, vocab_size=43, spec=spec_of(20), num_threads=8)
    np.testing.assert_array_equal(pairs.source, usual.source)


def test_free_memory_is_some_and_within_the_machine():
    assert 2**20 < block_memory.free_memory() < 2**50


def test_progress_adds_up():
    done: list[int] = []
    couple(DATA, vocab_size=43, spec=spec_of(20), progress=done.append)
    assert sum(done) == len(DATA)
