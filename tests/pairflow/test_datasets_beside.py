"""What an array or a table carries beside its numbers: used as it is meant, or refused with a word about it."""

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.sparse
import zarr

from pairflow import datasets
from pairflow.errors import DatasetError
from pairflow.spec import DatasetSpec

TOKENS = (np.arange(40 * 5).reshape(40, 5) * 7 % 11).astype(np.int64)
FRAME = pd.DataFrame(TOKENS, columns=[f"t{i}" for i in range(5)])


def load(path, **fields):
    return datasets.load(DatasetSpec(name="tokens", path=str(path), vocab_size=11, **fields), progress=False).tokens


def test_an_index_of_pandas_is_no_position(tmp_path):
    kept = FRAME[FRAME.t0 > 3]
    for name, frame in (("filtered", kept), ("named", kept.rename_axis("id")), ("plain", kept.reset_index(drop=True))):
        frame.to_parquet(tmp_path / f"{name}.parquet")
        np.testing.assert_array_equal(load(tmp_path / f"{name}.parquet"), TOKENS[TOKENS[:, 0] > 3])


def test_an_index_of_several_levels_is_no_position(tmp_path):
    levels = pd.MultiIndex.from_product([range(8), list("abcde")], names=["run", None])
    FRAME.set_index(levels).to_parquet(tmp_path / "rows.parquet")
    np.testing.assert_array_equal(load(tmp_path / "rows.parquet"), TOKENS)


@pytest.mark.parametrize("metadata", [b"{", b"[]", b'{"index_columns": 3}', b'{"index_columns": [7]}', b"[" * 99_999])
def test_a_note_of_pandas_that_makes_no_sense_says_nothing(tmp_path, metadata):
    table = pa.table({f"t{i}": TOKENS[:, i] for i in range(5)}).replace_schema_metadata({b"pandas": metadata})
    pq.write_table(table, tmp_path / "rows.parquet")
    np.testing.assert_array_equal(load(tmp_path / "rows.parquet"), TOKENS)


def test_types_that_only_say_how_integers_are_stored(tmp_path):
    FRAME.astype("category").to_parquet(tmp_path / "categories.parquet")
    FRAME.astype("UInt8").to_parquet(tmp_path / "nullable.parquet")
    FRAME.assign(t0=FRAME.t0.astype("uint64")).to_parquet(tmp_path / "mixed.parquet")
    lists = pa.array(TOKENS.tolist(), pa.list_(pa.uint8(), 5))
    tensors = pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(pa.uint8(), [5]), lists)
    pq.write_table(pa.table({"tokens": tensors}), tmp_path / "tensors.parquet")
    words = pa.ListArray.from_arrays(np.arange(0, 201, 5, dtype=np.int32), pa.array(TOKENS.ravel()).dictionary_encode())
    pq.write_table(pa.table({"tokens": words}), tmp_path / "words.parquet")
    for name in ("categories", "nullable", "mixed", "tensors", "words"):
        np.testing.assert_array_equal(load(tmp_path / f"{name}.parquet"), TOKENS)


def test_what_is_missing_is_no_token(tmp_path):
    FRAME.where(FRAME != 3).to_parquet(tmp_path / "floats.parquet")
    FRAME.where(FRAME != 3).astype("Int64").to_parquet(tmp_path / "nullable.parquet")
    FRAME.where(FRAME != 3).astype("category").to_parquet(tmp_path / "categories.parquet")
    for name, says in (
        ("floats", "no integers"),
        ("nullable", "missing values"),
        ("categories", "missing|no integers"),
    ):
        with pytest.raises(DatasetError, match=says):
            load(tmp_path / f"{name}.parquet")


def test_columns_of_one_name(tmp_path):
    pq.write_table(pa.table([pa.array([1]), pa.array([2])], names=["a", "a"]), tmp_path / "rows.parquet")
    with pytest.raises(DatasetError, match="several columns of the name 'a'"):
        load(tmp_path / "rows.parquet")


def test_big_endian_and_fortran_order_are_the_numbers_that_they_stand_for(tmp_path):
    for number, array in enumerate((TOKENS.astype(">u4"), np.asfortranarray(TOKENS), TOKENS[::-1][::-1])):
        np.save(tmp_path / f"{number}.npy", array)
        loaded = load(tmp_path / f"{number}.npy")
        np.testing.assert_array_equal(loaded, TOKENS)
        assert loaded.dtype == np.uint8


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.zeros(4, dtype=[("a", "u1"), ("b", "u1")]), "tokens must be integers, got .*'a'"),
        (np.zeros((4, 2), "m8[s]"), "tokens must be integers, got timedelta64"),
        (np.zeros((4, 2), "M8[D]"), "tokens must be integers, got datetime64"),
        (np.zeros((4, 2), complex), "tokens must be integers, got complex128"),
        (np.array(3), "matrix"),
        (np.zeros((4, 2), "V3"), "tokens must be integers"),
    ],
)
def test_arrays_of_other_things(tmp_path, array, says):
    np.save(tmp_path / "rows.npy", array)
    with pytest.raises(DatasetError, match=says):
        load(tmp_path / "rows.npy")


def test_a_mask_beside_an_array(tmp_path):
    np.savez(tmp_path / "rows.npz", tokens=TOKENS, mask=TOKENS == 3)
    with pytest.raises(DatasetError, match="holds a 'mask' beside 'tokens'"):
        load(tmp_path / "rows.npz")
    np.savez(tmp_path / "rows.npz", tokens=TOKENS, mask=np.zeros_like(TOKENS, bool))
    np.testing.assert_array_equal(load(tmp_path / "rows.npz"), TOKENS)


def test_a_sparse_matrix(tmp_path):
    scipy.sparse.save_npz(tmp_path / "rows.npz", scipy.sparse.csr_array(TOKENS))
    with pytest.raises(DatasetError, match=r"sparse matrix of SciPy; save matrix\.toarray"):
        load(tmp_path / "rows.npz")


def test_zarr_that_says_what_its_numbers_stand_for(tmp_path):
    array = zarr.create_array(tmp_path / "rows.zarr", shape=TOKENS.shape, chunks=(9, 5), dtype="int16")
    array[...] = TOKENS
    array.attrs["units"] = "tokens"
    np.testing.assert_array_equal(load(tmp_path / "rows.zarr"), TOKENS)
    for name, value, says in (
        ("scale_factor", 2, "stored packed"),
        ("_FillValue", 3, "positions of 3, which its attr"),
    ):
        array.attrs.put({name: value})
        with pytest.raises(DatasetError, match=says):
            load(tmp_path / "rows.zarr")
    array.attrs.put({"_FillValue": -1, "add_offset": 0})
    np.testing.assert_array_equal(load(tmp_path / "rows.zarr"), TOKENS)


def test_a_shape_that_no_file_holds(tmp_path):
    """A few bytes that promise more than there is, and more than any memory."""
    np.save(tmp_path / "rows.npy", TOKENS)
    data = (tmp_path / "rows.npy").read_bytes()
    (tmp_path / "rows.npy").write_bytes(data.replace(b"(40, 5), }          ", b"(4000000000000, 5), }"[:20]))
    with pytest.raises(DatasetError, match="cannot be read"):
        load(tmp_path / "rows.npy")
    zarr.create_array(tmp_path / "rows.zarr", shape=(2**50, 8), chunks=(2**40, 8), dtype="uint8")
    with pytest.raises(DatasetError, match=r"says that it holds .* GiB"):
        load(tmp_path / "rows.zarr")


def test_a_column_that_is_named(tmp_path):
    lists = {"input_ids": TOKENS.tolist(), "tokens": (TOKENS + 1).tolist(), "text": ["x"] * 40}
    pq.write_table(pa.table(lists), tmp_path / "rows.parquet")
    np.savez(tmp_path / "rows.npz", input_ids=TOKENS, other=TOKENS + 1)
    group = zarr.open_group(tmp_path / "rows.zarr", mode="w")
    group.create_array("input_ids", data=TOKENS)
    for ending in ("parquet", "npz", "zarr"):
        np.testing.assert_array_equal(load(tmp_path / f"rows.{ending}", column="input_ids"), TOKENS)
        with pytest.raises(DatasetError, match="named 'nope'"):
            load(tmp_path / f"rows.{ending}", column="nope")
    with pytest.raises(DatasetError, match="'text' holds string, expected lists"):
        load(tmp_path / "rows.parquet", column="text")
    np.save(tmp_path / "rows.npy", TOKENS)
    with pytest.raises(DatasetError, match="has no column 'x'; leave the column out"):
        load(tmp_path / "rows.npy", column="x")


def test_a_folder_as_spark_writes_one(tmp_path):
    folder = tmp_path / "rows.parquet"
    folder.mkdir()
    for part, rows in enumerate((TOKENS[:25], TOKENS[:0], TOKENS[25:])):
        lists = pa.array(rows.tolist(), pa.list_(pa.int32()))
        pq.write_table(pa.table({"tokens": lists}), folder / f"part-{part:05}-6c1d-c000.snappy.parquet")
        (folder / f".part-{part:05}-6c1d-c000.snappy.parquet.crc").write_bytes(b"crc")
    (folder / "_SUCCESS").touch()
    np.testing.assert_array_equal(load(folder), TOKENS)
    (folder / "rows.npy").touch()
    with pytest.raises(DatasetError, match=r"rows\.npy is a file that ends in '\.npy', expected only .* \.parquet"):
        load(folder)


def test_endings_in_capitals(tmp_path):
    np.save(tmp_path / "rows.npy", TOKENS)
    (tmp_path / "rows.npy").rename(tmp_path / "ROWS.NPY")
    np.testing.assert_array_equal(load(tmp_path / "ROWS.NPY"), TOKENS)


def test_a_vocabulary_that_is_nested_too_deeply(tmp_path):
    np.save(tmp_path / "rows.npy", TOKENS)
    (tmp_path / "words.json").write_text("[" * 99_999)
    spec = DatasetSpec(name="tokens", path=str(tmp_path / "rows.npy"), vocab_path=str(tmp_path / "words.json"))
    with pytest.raises(DatasetError, match="nested too deeply"):
        datasets.load(spec)


def test_a_spec_without_a_column_says_what_it_always_said():
    """Its JSON enters fingerprints, tags and manifests: it has no word for what was not asked for."""
    spec = DatasetSpec(name="smiles", path="/a.smi")
    assert "column" not in spec.model_dump(mode="json")
    assert "column" not in json.loads(spec.model_dump_json())
    named = DatasetSpec(name="smiles", path="/a.csv", column="structure")
    assert named.model_dump(mode="json")["column"] == "structure"
    assert DatasetSpec.model_validate(named.model_dump(mode="json")) == named
