"""`couple` as a user meets it: reproducible bytes, edge sizes, dtypes, and clear errors."""

import hashlib

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pairflow.coupling import couple, engine_version, resolve_engine
from pairflow.errors import SpecError
from pairflow.spec import CouplingSpec

SPEC = CouplingSpec(num_steps=6, seed=4)


def formula_support(num_rows: int, length: int, vocab_size: int) -> np.ndarray:
    row, position = np.ogrid[:num_rows, :length]
    return ((row * row + 3 * row * position + position) % vocab_size).astype(np.uint16)


SUPPORT = formula_support(90, 14, 43)
WHOLE = couple(SUPPORT, vocab_size=43, spec=SPEC)


def test_arrays_of_other_libraries_are_their_values():
    """A pandas frame's index is no token; big-endian bytes and masked arrays without a mask are plain numbers."""
    frame = pd.DataFrame(SUPPORT, index=np.arange(len(SUPPORT)) * 7)
    for tokens in (frame, SUPPORT.astype(">u4"), np.ma.masked_array(SUPPORT), torch.from_numpy(SUPPORT.astype(int))):
        np.testing.assert_array_equal(couple(tokens, vocab_size=43, spec=SPEC), WHOLE)


@pytest.mark.parametrize("num_threads", [1, 2, 5])
def test_threads_do_not_show(num_threads):
    np.testing.assert_array_equal(couple(SUPPORT, vocab_size=43, spec=SPEC, num_threads=num_threads), WHOLE)


@pytest.mark.parametrize("engine", ["cpu", "dense"])
@pytest.mark.parametrize("kind", ["closed_form", "independent"])
@pytest.mark.parametrize("batch", [1, 7, 89])
def test_batches_and_their_order_do_not_show(engine, kind, batch):
    spec = SPEC.model_copy(update={"kind": kind})
    whole = couple(SUPPORT, vocab_size=43, spec=spec, engine=engine)
    pieces = np.zeros_like(SUPPORT)
    for start in reversed(range(0, len(SUPPORT), batch)):
        rows = np.arange(start, min(start + batch, len(SUPPORT)))[::-1]
        pieces[rows] = couple(SUPPORT[rows], SUPPORT, vocab_size=43, spec=spec, sample_ids=rows, engine=engine)
    np.testing.assert_array_equal(pieces, whole)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32, np.uint64, np.int64])
def test_dtype_and_memory_order_do_not_show(dtype, order):
    tokens = np.asarray(SUPPORT, dtype=dtype, order=order)
    source = couple(tokens, vocab_size=43, spec=SPEC)
    assert source.dtype == dtype
    np.testing.assert_array_equal(source, WHOLE)


def test_the_input_is_left_alone():
    tokens = SUPPORT.copy()
    tokens.flags.writeable = False
    couple(tokens, vocab_size=43, spec=SPEC)
    np.testing.assert_array_equal(tokens, SUPPORT)


@pytest.mark.parametrize(
    ("vocab_size", "length", "temperature", "digest"),
    [
        (43, 14, 1.0, "5c5db8ce3e5cd60c1275d414a35ee1a458b50f0f1f4ede9799e13f793a00e0c2"),
        (2, 300, 1.0, "762b2a7a8d7a2c0c224671b324570a3318bfecf508f09b87e530e8929c7f4435"),
        (300, 9, 1.0, "a13c5798ff01536e036330b14c73a038f5eb5966e48a7942b4887133609b2783"),
        (43, 14, 0.5, "bbe0e4d05ad4629550889df62d80d695ede591c114609ddc9198b9caab786b99"),
    ],
)
def test_golden_digests_of_cpu_1(vocab_size, length, temperature, digest):
    """Recorded with engine cpu/1 on x86-64. Different bytes need a new engine version, and new digests here."""
    assert engine_version("cpu") == "cpu/1"
    support = formula_support(90, length, vocab_size)
    source = couple(support, vocab_size=vocab_size, spec=CouplingSpec(temperature=temperature), engine="cpu")
    assert hashlib.sha256(source.astype("<u2").tobytes()).hexdigest() == digest


def test_duplicates_have_sources_of_their_own():
    rows = np.repeat(SUPPORT[:1], 50, axis=0)
    source = couple(rows, vocab_size=43, spec=SPEC)
    assert len(np.unique(source, axis=0)) == 50


def test_a_vocabulary_larger_than_the_largest_token_is_used_whole():
    source = couple(np.zeros((300, 20), np.uint8), vocab_size=9, spec=CouplingSpec())
    assert set(np.unique(source)) == set(range(9))


@pytest.mark.parametrize("engine", ["cpu", "dense"])
@pytest.mark.parametrize(("num_rows", "length", "num_steps"), [(1, 1, 1), (1, 40, 20), (40, 1, 20), (5, 5, 1)])
def test_edge_sizes(engine, num_rows, length, num_steps):
    support = formula_support(num_rows, length, 5)
    source = couple(support, vocab_size=5, spec=CouplingSpec(num_steps=num_steps), engine=engine)
    assert source.shape == support.shape
    assert source.max() < 5


def test_independent_sources_ignore_the_support():
    spec = CouplingSpec(kind="independent")
    first = couple(SUPPORT, vocab_size=43, spec=spec)
    np.testing.assert_array_equal(first, couple(np.zeros_like(SUPPORT), vocab_size=43, spec=spec))
    assert not np.array_equal(first, couple(SUPPORT, vocab_size=43, spec=CouplingSpec(kind="independent", seed=1)))


@pytest.mark.slow
@given(st.data())
@settings(max_examples=40, deadline=None)
def test_any_shape_gives_sources_within_the_vocabulary(data):
    vocab_size = data.draw(st.sampled_from([2, 3, 17, 255, 256, 257, 70_000]))
    num_rows, length = data.draw(st.integers(1, 40)), data.draw(st.sampled_from([1, 2, 9, 255, 256]))
    spec = CouplingSpec(
        num_steps=data.draw(st.integers(1, 30)),
        seed=data.draw(st.integers(0, 2**63 - 1)),
        temperature=data.draw(st.sampled_from([1.0, 0.3, 4.0])),
    )
    tokens = np.random.default_rng(spec.seed).integers(0, vocab_size, (num_rows, length))
    source = couple(tokens, vocab_size=vocab_size, spec=spec)
    assert source.min() >= 0
    assert source.max() < vocab_size
    row = data.draw(st.integers(0, num_rows - 1))
    alone = couple(tokens[row : row + 1], tokens, vocab_size=vocab_size, spec=spec, sample_ids=[row])
    np.testing.assert_array_equal(alone[0], source[row])


def test_progress_adds_up():
    done: list[int] = []
    couple(SUPPORT, vocab_size=43, spec=SPEC, progress=done.append)
    assert sum(done) == len(SUPPORT)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target": np.zeros((3, 2))}, "got an array of float64, expected integers"),
        ({"target": np.full((3, 2), np.nan)}, "expected integers"),
        ({"target": np.zeros(4, np.uint8)}, r"got shape \(4,\), expected two axes"),
        ({"target": np.zeros((0, 2), np.uint8)}, "at least one row"),
        ({"target": np.zeros((2, 0), np.uint8)}, "at least one row"),
        ({"target": np.zeros((1, 65_536), np.uint8)}, "at most 65535"),
        ({"target": np.array([[0, 1], [2, 9]])}, "token 9 at row 1, position 1 .* 0 to 4"),
        ({"target": np.array([[0, -1]])}, "token -1 at row 0, position 1"),
        ({"vocab_size": 1}, "vocab_size: got 1, expected 2"),
        ({"support": np.zeros((3, 4), np.uint8)}, "rows of 4 tokens and target of 2"),
        ({"support": np.full((3, 2), 7)}, "support: token 7"),
        ({"sample_ids": [0, 1]}, r"expected integers of shape \(3,\)"),
        ({"sample_ids": [0, 1, -2]}, "got -2, expected no negative"),
        ({"sample_ids": [0.0, 1.0, 2.0]}, "got an array of float64"),
        ({"engine": "gpu"}, "got 'gpu', expected 'auto' or one of cpu, cuda, dense"),
        ({"num_threads": 0}, "num_threads: got 0"),
        ({"num_threads": 1.5}, "num_threads: got 1.5, expected a whole number"),
        ({"vocab_size": 5.0}, "vocab_size: got 5.0, expected a whole number, 2 to 2"),
        ({"vocab_size": True}, "vocab_size: got True, expected a whole number"),
        ({"vocab_size": None}, "vocab_size: got None"),
        ({"spec": None}, "spec: got NoneType without kind, expected a CouplingSpec"),
        ({"spec": {"num_steps": 3}}, "spec: got dict without kind"),
        ({"progress": 7}, "progress: got 7, expected a function"),
        ({"target": [[1, 2], [3]]}, "target: cannot be read as an array"),
        ({"target": np.ma.masked_equal([[1, 2], [3, 4]], 3)}, r"target: 1 values are masked.*target\.filled"),
        ({"target": scipy.sparse.csr_array(np.eye(3, dtype=np.uint8))}, r"sparse csr_array; give target\.toarray"),
        ({"target": pd.DataFrame({"a": [1, None]}, dtype="Int64")}, "got an array of float64"),
        ({"target": pd.DataFrame({"a": ["x", 1]})}, "got an array of object"),
        ({"target": np.zeros(3, dtype=[("a", "u1"), ("b", "u1")])}, "got an array of .*'a'"),
        ({"target": np.zeros((3, 2), "m8[s]")}, "got an array of timedelta"),
        ({"target": np.zeros((3, 2), bool)}, "got an array of bool"),
        ({"target": np.array(3)}, r"got shape \(\)"),
        ({"target": np.zeros((3, 2), np.int8), "vocab_size": 200}, "int8, which cannot hold every source: .* to 199"),
        ({"sample_ids": np.ma.masked_less(np.arange(3), 1)}, "sample_ids: 1 values are masked"),
    ],
)
def test_bad_input_says_what_was_expected(arguments, message):
    usual = {"target": np.zeros((3, 2), np.uint8), "vocab_size": 5, "spec": SPEC}
    with pytest.raises(SpecError, match=message):
        couple(**(usual | arguments))


def test_auto_is_the_cpu_engine_where_no_gpu_is():
    assert resolve_engine("auto", SPEC) == ("cuda" if torch.cuda.is_available() else "cpu")
