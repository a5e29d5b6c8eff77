"""Bring your own: every way to hand in a matrix of integers, and every way to get it wrong."""

import io
import json

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr

from pairflow import datasets
from pairflow.errors import DatasetError, SpecError
from pairflow.spec import DatasetSpec, parse

TOKENS = (np.arange(40 * 5).reshape(40, 5) * 7 % 11).astype(np.int64)


def load(path, vocab_size=11, **fields):
    return datasets.load(DatasetSpec(name="tokens", path=str(path), vocab_size=vocab_size, **fields))


def save_npy(folder, array=TOKENS):
    np.save(folder / "rows.npy", array)
    return folder / "rows.npy"


def save_npz(folder):
    np.savez(folder / "rows.npz", other=np.zeros(3), tokens=TOKENS)
    return folder / "rows.npz"


def save_lone_npz(folder):
    np.savez_compressed(folder / "rows.npz", TOKENS)
    return folder / "rows.npz"


def save_lists(folder, kind=None):
    lists = pa.array(TOKENS.tolist(), type=kind or pa.list_(pa.int16()))
    pq.write_table(pa.table({"tokens": lists, "name": ["x"] * len(TOKENS)}), folder / "rows.parquet", row_group_size=7)
    return folder / "rows.parquet"


def save_fixed_lists(folder):
    return save_lists(folder, pa.list_(pa.uint8(), 5))


def save_columns(folder):
    pq.write_table(pa.table({f"p{i}": TOKENS[:, i] for i in range(5)}), folder / "rows.parquet")
    return folder / "rows.parquet"


def save_zarr(folder, zarr_format=3):
    array = zarr.create_array(
        folder / "rows.zarr", shape=TOKENS.shape, chunks=(9, 5), dtype="uint16", zarr_format=zarr_format
    )
    array[...] = TOKENS
    return folder / "rows.zarr"


def save_zarr_2(folder):
    return save_zarr(folder, zarr_format=2)


@pytest.mark.parametrize(
    "save",
    [save_npy, save_npz, save_lone_npz, save_lists, save_fixed_lists, save_columns, save_zarr, save_zarr_2],
)
def test_every_format_gives_the_same_rows(tmp_path, save):
    loaded = load(save(tmp_path))
    np.testing.assert_array_equal(loaded.tokens, TOKENS)
    assert loaded.tokens.dtype == np.uint8
    assert loaded.tokens.flags.c_contiguous
    assert (loaded.kind, loaded.vocab, loaded.image_shape, loaded.labels) == ("tokens", None, None, None)
    assert (len(loaded), loaded.length, loaded.vocab_size) == (40, 5, 11)


@pytest.mark.parametrize(
    ("vocab_size", "dtype"),
    [(256, np.uint8), (257, np.uint16), (65_536, np.uint16), (65_537, np.uint32), (2**32, np.uint32)],
)
def test_smallest_type_that_holds_the_vocabulary(tmp_path, vocab_size, dtype):
    assert load(save_npy(tmp_path), vocab_size).tokens.dtype == dtype


def test_duplicates_are_kept(tmp_path):
    assert len(load(save_npy(tmp_path, np.zeros((30, 4), dtype=int)))) == 30


def test_vocabulary_file(tmp_path):
    words = [f"w{i}" for i in range(11)]
    (tmp_path / "words.json").write_text(json.dumps(words))
    spec = DatasetSpec(name="tokens", path=str(save_npy(tmp_path)), vocab_path=str(tmp_path / "words.json"))
    loaded = datasets.load(spec)
    assert loaded.vocab is not None
    assert loaded.vocab.tokens == tuple(words)
    assert loaded.vocab_size == 11


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1, 2]", "list of at least two strings"),
        ('{"a": 0}', "list of at least two strings"),
        ('["a"]', "list of at least two strings"),
        ('["a", "b", "a"]', "'a' stands in it more than once"),
        ('["a", ', "cannot be read as JSON"),
    ],
)
def test_bad_vocabulary_files(tmp_path, text, message):
    path = tmp_path / "words.json"
    path.write_text(text)
    spec = DatasetSpec(name="tokens", path=str(save_npy(tmp_path)), vocab_path=str(path))
    with pytest.raises(DatasetError, match=message) as caught:
        datasets.load(spec)
    assert str(path) in str(caught.value)


def test_missing_vocabulary_file(tmp_path):
    spec = DatasetSpec(name="tokens", path=str(save_npy(tmp_path)), vocab_path=str(tmp_path / "no.json"))
    with pytest.raises(DatasetError, match=r"no\.json does not exist"):
        datasets.load(spec)


def test_spec_wants_a_path_and_one_vocabulary():
    for data in ({}, {"path": "x.npy"}, {"path": "x.npy", "vocab_size": 3, "vocab_path": "y"}):
        with pytest.raises(SpecError):
            parse(DatasetSpec, {"name": "tokens", **data})


def with_token(row, column, value):
    array = TOKENS.copy()
    array[row, column] = value
    return array


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (with_token(17, 3, 11), "token 11 at row 17, column 3 does not fit K = 11.*at least 12 tokens"),
        (with_token(4, 1, -2), "token -2 at row 4, column 1 is negative"),
        (TOKENS.astype(np.float32), "must be integers, got float32;"),
        (np.where(TOKENS == 3, np.nan, TOKENS), "must be integers, got float64 with NaN"),
        (TOKENS > 5, "must be integers, got bool"),
        (TOKENS.astype(str), "must be integers, got <U"),
        (TOKENS[0], r"matrix \[M, D\], got 1 dimension"),
        (TOKENS[None], r"got 3 dimension\(s\), shape \[1, 40, 5\]"),
        (np.array(3), r"got 0 dimension"),
        (TOKENS[:0], r"is empty, shape \[0, 5\]"),
        (TOKENS[:, :0], r"is empty, shape \[40, 0\]"),
        (np.zeros((2, 65_536), dtype=np.uint8), "rows of 65,536 tokens, at most 65,535"),
    ],
)
def test_arrays_that_are_no_token_rows(tmp_path, array, message):
    path = save_npy(tmp_path, array)
    with pytest.raises(DatasetError, match=message) as caught:
        load(path)
    assert str(path) in str(caught.value)


class Trap:
    """Creates a file when unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_object_arrays_are_refused_without_unpickling(tmp_path, suffix):
    trap = np.array([[Trap(str(tmp_path / "sprung"))]], dtype=object)
    path = tmp_path / f"rows{suffix}"
    if suffix == ".npy":
        np.save(path, trap, allow_pickle=True)
    else:
        np.savez(path, tokens=trap)
    with pytest.raises(DatasetError, match="allow_pickle=False"):
        load(path)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("save", [save_npy, save_npz, save_lone_npz, save_lists])
@pytest.mark.parametrize("keep", [0, 3, 0.5, 0.95])
def test_cut_short_files(tmp_path, save, keep):
    path = save(tmp_path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep) if keep < 1 else keep])
    with pytest.raises(DatasetError, match=r"rows\.\w+ cannot be read as") as caught:
        load(path)
    assert len(str(caught.value)) < 800


@pytest.mark.parametrize("save", [save_zarr, save_zarr_2])
def test_damaged_zarr_chunk(tmp_path, save):
    path = save(tmp_path)
    chunk = max(
        (
            file
            for file in path.rglob("*")
            if file.is_file() and "json" not in file.name and not file.name.startswith(".z")
        ),
        key=lambda file: file.stat().st_size,
    )
    chunk.write_bytes(b"\0" * 7)
    with pytest.raises(DatasetError, match=r"rows\.zarr cannot be read as \.zarr"):
        load(path)


def test_zarr_that_is_no_array(tmp_path):
    (tmp_path / "empty.zarr").mkdir()
    zarr.open_group(tmp_path / "group.zarr", mode="w")
    (tmp_path / "file.zarr").write_text("no")
    for name in ("empty", "group", "file"):
        with pytest.raises(DatasetError, match=rf"{name}\.zarr cannot be read"):
            load(tmp_path / f"{name}.zarr")


def test_paths_that_lead_nowhere(tmp_path):
    with pytest.raises(DatasetError, match=r"no\.npy does not exist"):
        load(tmp_path / "no.npy")
    (tmp_path / "folder.npy").mkdir()
    with pytest.raises(DatasetError, match=r"folder\.npy is a folder, expected a file"):
        load(tmp_path / "folder.npy")
    (tmp_path / "rows.csv").write_text("1,2")
    with pytest.raises(
        DatasetError, match=r"ends in '\.csv', expected one of \.npy, \.npz, \.parquet, \.arrow, \.feather, \.zarr"
    ):
        load(tmp_path / "rows.csv")


def test_formats_under_the_wrong_name(tmp_path):
    save_npz(tmp_path).rename(tmp_path / "rows.npy")
    with pytest.raises(DatasetError, match="archive of arrays"):
        load(tmp_path / "rows.npy")
    save_npy(tmp_path).rename(tmp_path / "rows.npz")
    with pytest.raises(DatasetError, match="cannot be read"):
        load(tmp_path / "rows.npz")


def test_npz_with_several_arrays_needs_a_name(tmp_path):
    np.savez(tmp_path / "rows.npz", a=TOKENS, b=TOKENS)
    with pytest.raises(DatasetError, match=r"arrays \['a', 'b'\], expected one alone or one named 'tokens'"):
        load(tmp_path / "rows.npz")
    np.savez(tmp_path / "none.npz")
    with pytest.raises(DatasetError, match=r"none\.npz"):
        load(tmp_path / "none.npz")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"tokens": [[1, 2], [3], [4, 5]]}, "row 1 has 1 tokens, row 0 has 2"),
        ({"tokens": [[1, 2], None]}, "1 rows of 'tokens' are missing"),
        ({"tokens": [[1, 2], [3, None]]}, "1 tokens are missing"),
        ({"tokens": [["a"], ["b"]]}, "lists of string"),
        ({"tokens": [[0.5], [1.0]]}, "must be integers, got double|must be integers, got float64"),
        ({"tokens": [["a"]], "x": [1]}, "lists of string"),
        ({"a": [1, 2], "b": [1.5, 2.5]}, r"columns \['b'\] are no integers"),
        ({"a": [1, None]}, "column 'a' has missing values"),
        ({"tokens": pa.array([], type=pa.list_(pa.int8()))}, "is empty"),
        ({}, "is empty"),
    ],
)
def test_parquet_tables_that_are_no_token_rows(tmp_path, table, message):
    pq.write_table(pa.table(table), tmp_path / "rows.parquet")
    with pytest.raises(DatasetError, match=message) as caught:
        load(tmp_path / "rows.parquet")
    assert "rows.parquet" in str(caught.value)


def test_paths_are_relative_to_the_working_folder(tmp_path, monkeypatch):
    save_npy(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert len(load("rows.npy")) == 40


class TestFolder:
    """Rows are added by dropping a file in; nothing unfinished is read."""

    @pytest.fixture
    def folder(self, tmp_path):
        folder = tmp_path / "rows"
        folder.mkdir()
        np.save(folder / "b.npy", TOKENS[10:20].astype(np.uint16))
        np.savez(folder / "a.npz", tokens=TOKENS[:10])
        pq.write_table(pa.table({f"p{i}": TOKENS[20:, i] for i in range(5)}), folder / "c.parquet")
        return folder

    def test_files_in_the_order_of_their_names(self, folder, tmp_path):
        loaded = load(folder)
        np.testing.assert_array_equal(loaded.tokens, TOKENS)
        assert loaded.digest == load(save_npy(tmp_path)).digest
        assert (loaded.report.source, loaded.report.rows_read) == (str(folder), 40)

    def test_another_file_is_more_rows(self, folder):
        np.save(folder / "d.npy", TOKENS[:3])
        np.testing.assert_array_equal(load(folder).tokens, np.concatenate([TOKENS, TOKENS[:3]]))

    @pytest.mark.parametrize("name", [".d.npy", "d.npy.partial", "d.npy.part", "d.npy.tmp", "_SUCCESS", "_d.npy"])
    def test_unfinished_files_are_passed_over(self, folder, name):
        (folder / name).write_bytes(b"half of it")
        np.testing.assert_array_equal(load(folder).tokens, TOKENS)

    @pytest.mark.parametrize("name", ["a.npz", "b.npy", "c.parquet"])
    def test_a_file_that_is_cut_short(self, folder, name):
        path = folder / name
        path.write_bytes(path.read_bytes()[:-8])
        with pytest.raises(DatasetError, match=rf"{name} cannot be read"):
            load(folder)

    @pytest.mark.parametrize(
        ("array", "message"),
        [
            (TOKENS[:, :4], r"d\.npy has rows of 4 tokens, .*a\.npz has rows of 5"),
            (TOKENS + 0.5, r"d\.npy: tokens must be integers, got float64"),
            (TOKENS + 1, r"d\.npy: token 11 at row 0, column 3 does not fit K = 11"),
            (TOKENS - 1, r"d\.npy: token -1 at row 0, column 0 is negative"),
            (TOKENS[0], r"d\.npy: tokens must be a matrix"),
            (TOKENS[:0], r"d\.npy: the data set is empty"),
        ],
    )
    def test_a_file_that_does_not_fit(self, folder, array, message):
        np.save(folder / "d.npy", array)
        with pytest.raises(DatasetError, match=message):
            load(folder)

    def test_what_else_lies_there(self, folder):
        (folder / "more").mkdir()
        with pytest.raises(DatasetError, match="more is a folder, expected only files that end in"):
            load(folder)
        (folder / "more").rmdir()
        (folder / "notes.txt").write_text("?")
        with pytest.raises(DatasetError, match=r"notes\.txt is a file that ends in '\.txt'"):
            load(folder)
        (folder / "notes.txt").rename(folder / "rows.zarr")
        with pytest.raises(DatasetError, match=r"rows\.zarr is a file that ends in '\.zarr'"):
            load(folder)

    def test_nothing_finished(self, tmp_path):
        (tmp_path / "_rows.npy").touch()
        with pytest.raises(DatasetError, match="no finished file"):
            load(tmp_path)


def test_a_url_may_be_a_pattern_of_one_folder_alone(tmp_path):
    remote = fsspec.filesystem("memory")
    for number, name in enumerate(("a", "b")):
        content = io.BytesIO()
        np.save(content, np.full((20, 3), number))
        remote.pipe_file(f"/arrays/{name}/{name}.npy", content.getvalue())
    spec = DatasetSpec(name="tokens", path="memory://arrays/a/*.npy", vocab_size=2)
    assert datasets.load(spec, cache_dir=tmp_path, progress=False).report.rows_read == 20
    several = spec.model_copy(update={"path": "memory://arrays/*/*.npy"})
    with pytest.raises(DatasetError, match=r"memory://arrays/\*/\*\.npy is a pattern of several folders"):
        datasets.load(several, cache_dir=tmp_path, progress=False)
    remote.rm("/arrays", recursive=True)
