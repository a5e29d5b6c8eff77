"""Every bad input gets an error of ours that says what, and leaves nothing behind that reads as whole."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

import storage
from pairflow.errors import SpecError, StoreError
from storage.filesystem import open_folder

from . import storage_formula as formula


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("", "empty"),
        ("  ", "empty"),
        ("a\0b", "zero byte"),
        ("~\0", "zero byte"),
        ("\ud800", "is no path: .* surrogates not allowed"),
        ("~\ud800", "is no path: .* surrogates not allowed"),
        ("nonsense://bucket/store", "cannot be opened: .*nonsense"),
        ("s3://", "s3:// names no bucket, expected one such as s3://bucket/store"),
        ("s3:///store", "s3:///store names no bucket"),
        ("s3://key:secret@bucket/store", "carries a password"),
    ],
)
def test_bad_store_urls(url, message):
    for attempt in (lambda: storage.pairs_url(url, "ab" * 32, "zarr"), lambda: storage.open_pairs(url)):
        with pytest.raises(StoreError, match=message) as caught:
            attempt()
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "fingerprint", ["", "ab", "AB" * 32, "ab" * 33, "../" + "a" * 61, "ab" * 32 + "\n", "g" * 64, None, 7]
)
def test_a_fingerprint_is_64_digits(fingerprint, tmp_path):
    with pytest.raises(SpecError, match="64 hexadecimal digits"):
        storage.pairs_url(tmp_path, fingerprint, "zarr")
    with pytest.raises(SpecError, match="fingerprint"):
        formula.header("zarr", fingerprint=fingerprint)


def test_formats_and_plans(tmp_path):
    with pytest.raises(SpecError, match="zarr or parquet, got 'csv'"):
        storage.pairs_url(tmp_path, "ab" * 32, "csv")  # type: ignore[arg-type]
    for shard_size in (0, -3):
        with pytest.raises(SpecError, match=f"shard_size must be at least 1, got {shard_size}"):
            storage.plan_shards(10, shard_size)
    with pytest.raises(SpecError, match="num_rows"):
        storage.plan_shards(0, 10)
    for num_rows, shard_size in ((1, 1), (10, 3), (9, 3), (2, 100)):
        plan = storage.plan_shards(num_rows, shard_size)
        assert [row for shard in plan for row in range(shard.start, shard.stop)] == list(range(num_rows))
        assert [shard.index for shard in plan] == list(range(len(plan)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shard_size": 0}, "shard_size"),
        ({"num_rows": 0}, "num_rows"),
        ({"length": 65_536}, "length"),
        ({"vocab_size": 1}, "vocab_size"),
        ({"vocab_size": 2**32 + 1}, "vocab_size"),
        ({"dtype": "uint16"}, "dtype must be uint8 for vocab_size 43"),
        ({"dtype": "float32"}, "dtype"),
        ({"vocab": ["a"]}, "vocab has 1 tokens"),
        ({"sources_per_target": 3}, "multiple of sources_per_target"),
        ({"spec": {"x": float("nan")}}, "spec|finite"),
        ({"spec": {"x": {1, 2}}}, "spec"),
        ({"format": "csv"}, "format"),
        ({"more": 1}, "more"),
    ],
)
def test_headers(change, message):
    with pytest.raises(SpecError, match=message):
        formula.header(**({"format": "zarr"} | change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source": np.zeros((6, 6), np.uint8)}, r"source of shard 1 .*shape \(7, 6\), got \(6, 6\)"),
        ({"target": np.zeros((7, 5), np.uint8)}, r"target .*\(7, 6\), got \(7, 5\)"),
        ({"target": np.zeros(42, np.uint8)}, r"target .*got \(42,\)"),
        ({"source": np.zeros((7, 6))}, "source of shard 1 must be uint8.*got float64; cast it"),
        ({"source": np.zeros((7, 6), np.int64)}, "got int64"),
        ({"source": np.full((7, 6), 43, np.uint8)}, "source .*token 43, but vocab_size is 43"),
        ({"target": np.full((7, 6), 255, np.uint8)}, "target .*token 255"),
        ({"sample_id": np.arange(6)}, r"sample_id .*\(7,\), got \(6,\)"),
        ({"sample_id": np.arange(7.0)}, "sample_id .*int64, got float64"),
        ({"sample_id": np.arange(7, dtype=np.uint64)}, "got uint64"),
        ({"sample_id": np.arange(-1, 6)}, "counts rows from 0, got -1"),
        ({"source": np.ma.masked_equal(np.zeros((7, 6), np.uint8), 0)}, "source of shard 1 has masked values"),
        ({"target": [[1, 2], [3]]}, "target of shard 1 cannot be read as an array"),
        ({"index": 6}, "shard 6 is not in the plan: there are 6"),
        ({"index": -1}, "shard -1"),
        ({"index": 5}, r"shard 5 \(rows 35 to 39\) must have shape \(5, 6\)"),
    ],
)
def test_arrays_that_do_not_fit(format, tmp_path, snapshot, change, message):
    header = formula.header(format)
    url = storage.pairs_url(tmp_path, header.fingerprint, format)
    storage.begin_pairs(url, header)
    before = snapshot(url)
    good = dict(zip(("source", "target", "sample_id"), formula.rows(header, 7, 14), strict=True))
    with pytest.raises(SpecError, match=message):
        storage.write_shard(url, header, **({"index": 1} | good | change))
    assert snapshot(url) == before


@pytest.mark.parametrize("summary", [{"x": float("inf")}, {"x": np.zeros(2)}, {"x": {1}}, "text", None])
def test_summaries_that_are_not_json(format, tmp_path, summary):
    header = formula.header(format, 40)
    url = storage.pairs_url(tmp_path, header.fingerprint, format)
    storage.begin_pairs(url, header)
    formula.write_missing(url, header)
    with pytest.raises(SpecError, match="summary"):
        storage.commit_pairs(url, header, summary)
    assert storage.find_manifest(url) is None


def test_nothing_was_begun(format, store):
    header = formula.header(format)
    url = storage.pairs_url(store, header.fingerprint, format)
    assert storage.find_manifest(url) is None
    for attempt in (
        lambda: storage.missing_shards(url, header),
        lambda: storage.write_shard(url, header, 0, *formula.rows(header, 0, 7)),
        lambda: storage.commit_pairs(url, header, {}),
    ):
        with pytest.raises(StoreError, match="no pairs were begun"):
            attempt()


@pytest.mark.parametrize("where", ["store", "store/pairs", "store/pairs/{name}", "store/pairs/{name}/target"])
def test_a_file_where_a_folder_is_needed(tmp_path, where):
    header = formula.header("zarr")
    url = storage.pairs_url(tmp_path / "store", header.fingerprint, "zarr")
    in_the_way = tmp_path / where.format(name=Path(url).name)
    in_the_way.parent.mkdir(parents=True, exist_ok=True)
    in_the_way.write_text("something of the user's")
    with pytest.raises(StoreError, match=r"cannot (read|write) .*a file lies where a folder is needed"):
        formula.write(str(tmp_path / "store"), header)
    assert in_the_way.read_text() == "something of the user's"
    with pytest.raises(StoreError):
        storage.open_pairs(url)


def test_a_folder_where_a_file_is_needed(format, tmp_path):
    header = formula.header(format)
    url = storage.pairs_url(tmp_path, header.fingerprint, format)
    (Path(url) / "_manifest.json").mkdir(parents=True)
    with pytest.raises(StoreError, match="a folder lies where a file is needed"):
        storage.find_manifest(url)


def test_a_place_that_takes_no_folders():
    with pytest.raises(StoreError, match="cannot write /proc/store"):
        formula.write("/proc/store", formula.header("zarr"))


def test_a_name_that_is_too_long(tmp_path):
    with pytest.raises(StoreError, match="shorter path"):
        formula.write(str(tmp_path / ("x" * 300)), formula.header("zarr"))


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "permissions"),
        (errno.EIO, "check"),
    ],
)
def test_a_disk_that_fails_half_way(format, tmp_path, monkeypatch, code, remedy):
    """Raised by the second fsync of a shard's write, when its bytes are in a temporary file."""
    header = formula.header(format)
    url = storage.pairs_url(tmp_path, header.fingerprint, format)
    storage.begin_pairs(url, header)
    storage.write_shard(url, header, 0, *formula.rows(header, 0, 7))
    calls = iter(range(100))
    real = os.fsync

    def fsync(descriptor: int) -> None:
        if next(calls) == 1:
            raise OSError(code, os.strerror(code))
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        with pytest.raises(StoreError, match=f"cannot write .*{os.strerror(code)}; .*{remedy}"):
            storage.write_shard(url, header, 1, *formula.rows(header, 7, 14))
    assert not list(Path(url).rglob("*.tmp"))
    assert 0 not in {shard.index for shard in storage.missing_shards(url, header)}
    formula.write(str(tmp_path), header)
    assert storage.verify_pairs(url, progress=False).ok


def test_what_a_remote_client_raises_becomes_ours(monkeypatch):
    class NoCredentialsError(Exception):
        pass

    def refuse(*_, **__):
        raise NoCredentialsError("none found")

    monkeypatch.setattr(MemoryFileSystem, "pipe_file", refuse)
    with pytest.raises(StoreError, match=r"cannot write memory://.*NoCredentialsError: none found.*credentials"):
        formula.write("memory://refused", formula.header("zarr"))


def test_local_paths_mean_the_same_everywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    name = "ab" * 32 + ".zarr"
    assert storage.pairs_url("store", "ab" * 32, "zarr") == f"{tmp_path}/store/pairs/{name}"
    assert storage.pairs_url("../x/", "ab" * 32, "zarr") == f"{tmp_path.parent}/x/pairs/{name}"
    assert storage.pairs_url("~/store", "ab" * 32, "zarr") == f"{tmp_path}/home/store/pairs/{name}"
    assert storage.pairs_url(f"file://{tmp_path}", "ab" * 32, "zarr") == f"{tmp_path}/pairs/{name}"
    assert storage.pairs_url("memory://store/", "ab" * 32, "zarr") == f"memory://store/pairs/{name}"


def test_a_store_may_be_all_of_a_filesystem(format, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    header = formula.header(format)
    for root in ("memory://", "memory:///"):
        url = formula.write(root, header)
        assert storage.store_of(url) == "memory://"
        assert storage.open_pairs(url).manifest.fingerprint == header.fingerprint
        assert storage.verify_pairs(url, progress=False).ok
        assert {each.url for each in storage.take_inventory(root).couplings} == {url}
        MemoryFileSystem().rm("/pairs", recursive=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["a b", "a#b?c=1", "ü::x", "%41", "-rf", "[x]*"])
def test_odd_names_are_plain_names(format, tmp_path, name):
    url = formula.write(str(tmp_path / name), formula.header(format))
    assert Path(url).is_dir()
    assert storage.verify_pairs(url, progress=False).ok


@pytest.mark.parametrize("kind", ["local", "memory"])
def test_create_is_for_the_first_only(tmp_path, kind):
    folder = open_folder(str(tmp_path) if kind == "local" else "memory://create")
    assert folder.read("a/b") is None
    assert folder.size("a/b") is None
    assert folder.create("a/b", b"first")
    assert not folder.create("a/b", b"second")
    assert folder.read("a/b") == b"first"
    folder.write("a/b", b"third!")
    assert (folder.read("a/b"), folder.size("a/b")) == (b"third!", 6)
    folder.delete("a/b")
    folder.delete("a/b")
    assert folder.read("a/b") is None


def test_importing_storage_loads_nothing_heavy():
    code = "import sys, storage; print([m for m in ('torch', 'zarr', 'pyarrow', 'fsspec', 'tqdm') if m in sys.modules])"
    root = Path(storage.__file__).parents[1]
    found = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
