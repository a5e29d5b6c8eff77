"""What is written comes back, by every way of indexing, on every kind of store."""

import pickle

import numpy as np
import pytest

import storage
from pairflow.errors import SpecError, StoreError

from . import storage_formula as formula

KEYS = [
    0,
    -1,
    np.int64(13),
    np.array(5),
    slice(None),
    slice(3, 30),
    slice(None, None, 3),
    slice(None, None, -1),
    slice(38, 2, -5),
    slice(10, 10),
    slice(30, 10),
    slice(-9, 1000),
    [5, 3, 39, 3, 0],
    [],
    np.array([-1, -40, 20]),
    np.array([7], np.uint8),
    np.arange(40) % 3 == 0,
]


@pytest.mark.parametrize("shard_size", [1, 7, 40, 1000])
def test_every_index_gives_what_numpy_gives(format, store, shard_size):
    pairs = storage.open_pairs(formula.write(store, formula.header(format, shard_size)))
    expected = dict(zip(("source", "target", "sample_id"), formula.rows(pairs.manifest), strict=True))
    for name, array in expected.items():
        column = getattr(pairs, name)
        assert (column.shape, column.dtype, column.ndim, len(column)) == (array.shape, array.dtype, array.ndim, 40)
        for key in KEYS:
            got, wanted = (
                column[key],
                array[np.asarray(key, int) if key == [] else key] if isinstance(key, list) else array[key],
            )
            np.testing.assert_array_equal(got, wanted, err_msg=f"{name}[{key!r}]")
            assert got.dtype == array.dtype
            assert got.shape == wanted.shape


@pytest.mark.parametrize("shard_size", [1, 7, 1000])
def test_reading_it_all_and_shard_by_shard(format, store, shard_size):
    pairs = storage.open_pairs(formula.write(store, formula.header(format, shard_size)))
    expected = dict(zip(("source", "target", "sample_id"), formula.rows(pairs.manifest), strict=True))
    whole = pairs.read()
    assert whole.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(whole[name], array)
        assert whole[name].dtype == array.dtype
    assert pairs.read(("target",)).keys() == {"target"}
    for shard in pairs.manifest.plan():
        columns = pairs.shard(shard.index, ("sample_id", "source"))
        assert columns.keys() == {"sample_id", "source"}
        np.testing.assert_array_equal(columns["source"], expected["source"][shard.start : shard.stop])
    for attempt in (lambda: pairs.read(("source", "x")), lambda: pairs.shard(0, ("x",)), lambda: pairs.shard(99_999)):
        with pytest.raises(SpecError, match=r"have the columns sample_id, target, source, got x|not in the plan"):
            attempt()


@pytest.mark.parametrize(
    ("vocab_size", "dtype"), [(2, "uint8"), (256, "uint8"), (257, "uint16"), (65_537, "uint32"), (2**32, "uint32")]
)
def test_tokens_of_every_width(format, tmp_path, vocab_size, dtype):
    header = formula.header(format, 3, num_rows=8, vocab_size=vocab_size)
    assert header.dtype == dtype
    tokens = np.array([[vocab_size - 1 - (i + j) % 2 for j in range(6)] for i in range(8)], dtype)
    url = storage.pairs_url(tmp_path, header.fingerprint, format)
    storage.begin_pairs(url, header)
    for shard in header.plan():
        part = tokens[shard.start : shard.stop]
        storage.write_shard(url, header, shard.index, part, part[::-1], np.arange(shard.start, shard.stop))
    storage.commit_pairs(url, header, {})
    pairs = storage.open_pairs(url)
    np.testing.assert_array_equal(np.asarray(pairs.source), tokens)
    assert pairs.source.dtype == dtype


def test_shards_of_nothing_but_zeros_are_stored(format, tmp_path):
    header = formula.header(format, 4, num_rows=10)
    url = storage.pairs_url(tmp_path, header.fingerprint, format)
    storage.begin_pairs(url, header)
    for shard in header.plan():
        zeros = np.zeros((shard.num_rows, 6), np.uint8)
        storage.write_shard(url, header, shard.index, zeros, zeros, np.zeros(shard.num_rows, int))
    assert storage.missing_shards(url, header) == []
    storage.commit_pairs(url, header, {})
    assert storage.verify_pairs(url).ok
    assert not np.asarray(storage.open_pairs(url).source).any()


def test_arrays_of_any_memory_order_are_stored_alike(format, tmp_path):
    header = formula.header(format, 40, vocab_size=300)
    source, target, ids = formula.rows(header)
    url = storage.pairs_url(tmp_path, header.fingerprint, format)
    storage.begin_pairs(url, header)
    plain = storage.write_shard(url, header, 0, source, target, ids)
    strange = storage.write_shard(url, header, 0, np.asfortranarray(source), target.astype(">u2"), ids.astype(np.int32))
    assert strange == plain


def test_asarray_copies_and_casts(format, tmp_path):
    pairs = storage.open_pairs(formula.write(str(tmp_path), formula.header(format)))
    source, _, _ = formula.rows(pairs.manifest)
    array = np.asarray(pairs.source)
    array[:] = 0
    np.testing.assert_array_equal(pairs.source[:], source)  # what is cached was not touched
    assert np.asarray(pairs.source, dtype=np.int64).dtype == np.int64
    with pytest.raises(ValueError, match="without a copy"):
        np.array(pairs.source, copy=False)
    assert len(list(pairs.source)) == len(pairs) == 40  # type: ignore[call-overload]


@pytest.mark.parametrize("key", [40, -41, [0, 40], "a", 1.5, None, [0.5], np.zeros(39, bool), [[1]], (1, 2)])
def test_rows_that_are_not_there_are_index_errors(format, tmp_path, key):
    pairs = storage.open_pairs(formula.write(str(tmp_path), formula.header(format)))
    with pytest.raises(IndexError):
        pairs.source[key]


def test_pairs_pickle(format, tmp_path):
    pairs = storage.open_pairs(formula.write(str(tmp_path), formula.header(format)))
    for copy in (pickle.loads(pickle.dumps(pairs)).target, pickle.loads(pickle.dumps(pairs.target))):  # noqa: S301
        np.testing.assert_array_equal(np.asarray(copy), np.asarray(pairs.target))
    assert pickle.loads(pickle.dumps(pairs.manifest)) == pairs.manifest  # noqa: S301


def test_a_small_cache_changes_nothing(format, tmp_path, monkeypatch):
    monkeypatch.setattr("storage.reader._CACHE_BYTES", 1)
    pairs = storage.open_pairs(formula.write(str(tmp_path), formula.header(format, 3)))
    source, _, _ = formula.rows(pairs.manifest)
    order = np.random.default_rng(0).permutation(40)
    np.testing.assert_array_equal(pairs.source[order], source[order])


def test_the_manifest_describes_the_coupling(format, store):
    header = formula.header(format, 7, vocab=[f"<{i}>" for i in range(43)])
    url = formula.write(store, header)
    manifest = storage.find_manifest(url)
    assert manifest == storage.open_pairs(url).manifest
    assert manifest.header == header
    assert manifest.arrays["source"].model_dump() == {"shape": (40, 6), "dtype": "uint8"}
    assert manifest.summary == {"seconds": 1.5, "keep_rate": 0.25}
    assert [(shard.start, shard.stop) for shard in manifest.shards][-1] == (35, 40)
    assert manifest.created_by.startswith("pairflow ")


def test_a_second_run_finds_everything_done(format, store):
    header = formula.header(format)
    url = formula.write(store, header)
    first = storage.find_manifest(url)
    other_plan = formula.header(format, 3)
    planned = storage.begin_pairs(url, other_plan)
    assert planned == header
    assert storage.missing_shards(url, planned) == []
    assert storage.commit_pairs(url, planned, {"seconds": 99}) == first  # a manifest is never changed


def test_partial_pairs_do_not_open(format, store):
    header = formula.header(format, 7)
    url = storage.pairs_url(store, header.fingerprint, format)
    for check in (storage.open_pairs, storage.verify_pairs):
        with pytest.raises(StoreError, match="no pairs at"):
            check(url)
    storage.begin_pairs(url, header)
    for index in (4, 1):
        shard = header.shard(index)
        storage.write_shard(url, header, index, *formula.rows(header, shard.start, shard.stop))
    for check in (storage.open_pairs, storage.verify_pairs):
        with pytest.raises(StoreError, match=r"partial, 2 of 6 shards \(missing: 0, 2, 3, 5\).*pairflow pair"):
            check(url)
    with pytest.raises(StoreError, match=r"cannot commit.*2 of 6"):
        storage.commit_pairs(url, header, {})
    assert storage.find_manifest(url) is None
    assert storage.find_pairs(storage.store_of(url), header.fingerprint) is None
    assert formula.write_missing(url, header) == 4
    with pytest.raises(StoreError, match="nobody committed"):
        storage.open_pairs(url)
    storage.commit_pairs(url, header, {})
    assert storage.find_pairs(storage.store_of(url), header.fingerprint) == url
    assert len(storage.open_pairs(url)) == 40
