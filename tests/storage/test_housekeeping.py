"""What a store holds, what of it can go, and couplings in another form."""

import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import storage
from pairflow.errors import ShardConflictError, ShardCorruptError, SpecError, StoreError
from storage import open_folder

from . import storage_formula as formula

DAY_S = 24 * 3600.0


def begin(store: str, header: storage.PairsHeader, num_shards: int) -> str:
    """A coupling of which some shards are written."""
    url = storage.pairs_url(store, header.fingerprint, header.format)
    header = storage.begin_pairs(url, header)
    for shard in header.plan()[:num_shards]:
        storage.write_shard(url, header, shard.index, *formula.rows(header, shard.start, shard.stop))
    return url


def folders(store: str) -> set[str]:
    return {each.url for each in storage.take_inventory(store).couplings}


def garbage(store: str, **options: Any) -> list[storage.Garbage]:
    options = {"older_than_s": DAY_S, "now": time.time() + 2 * DAY_S, **options}
    return storage.find_garbage(storage.take_inventory(store), **options)


def test_an_inventory_says_what_is_there_and_how_much_of_it(format, store):
    whole = formula.write(store, formula.header(format, 7))
    part = begin(store, formula.header(format, 7, fingerprint="cd" * 32), 4)
    inventory = storage.take_inventory(store)
    found = {each.url: each for each in inventory.couplings}
    assert set(found) == {whole, part}
    assert [(found[url].state, found[url].shards_written) for url in (whole, part)] == [("complete", 6), ("partial", 4)]
    manifest = storage.find_manifest(whole)
    assert manifest is not None
    assert found[whole].header == manifest.header
    assert found[whole].fingerprint == "ab" * 32
    assert found[whole].stray == found[part].stray == ()
    assert abs(found[whole].modified - time.time()) < 600
    described = sum(each.num_bytes for shard in manifest.shards for each in shard.objects)
    assert described < found[whole].num_bytes < described + 40_000


def test_couplings_are_found_by_the_first_digits_of_their_fingerprint(store):
    """In every format, whole or not; whatever else lies there is passed over."""
    assert storage.search_pairs(store, "ab") == []
    first, second = "ab" * 32, "abc" + "d" * 61
    urls = [formula.write(store, formula.header(format, fingerprint=first)) for format in ("parquet", "zarr")]
    urls.append(begin(store, formula.header("zarr", fingerprint=second), 1))
    formula.write(store, formula.header("zarr", fingerprint="e" * 64))
    open_folder(store).write("pairs/abandoned.zarr", b"no coupling")
    assert storage.search_pairs(store, "ab") == urls
    assert storage.search_pairs(store, first) == urls[:2]
    assert storage.search_pairs(store, "abc") == urls[2:]
    assert storage.search_pairs(store, "abd") == []


def test_a_file_where_the_pairs_should_be(tmp_path):
    (tmp_path / "pairs").write_bytes(b"a file")
    with pytest.raises(StoreError, match=r"cannot list .*pairs: NotADirectoryError"):
        storage.search_pairs(tmp_path, "ab")


def test_sizes_are_those_on_the_disk(format, tmp_path):
    url = formula.write(str(tmp_path), formula.header(format, 7))
    (coupling,) = storage.take_inventory(tmp_path).couplings
    assert coupling.num_bytes == sum(path.stat().st_size for path in Path(url).rglob("*") if path.is_file())


def test_an_inventory_passes_over_what_is_not_ours(tmp_path):
    assert storage.take_inventory(tmp_path / "nothing").couplings == ()
    for name in ("notes.txt", "pairs/readme", "pairs/model.zarr/zarr.json", "pairs/" + "AB" * 32 + ".zarr/c.0"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("the user's")
    inventory = storage.take_inventory(tmp_path)
    assert (inventory.couplings, inventory.jobs) == ((), ())


@pytest.mark.parametrize("name", ["_manifest.json", "_header.json"])
def test_a_damaged_coupling_is_listed_and_never_garbage(format, tmp_path, name):
    header = formula.header(format, 7)
    url = formula.write(str(tmp_path), header) if name == "_manifest.json" else begin(str(tmp_path), header, 2)
    (Path(url) / name).write_bytes(b"{")
    (coupling,) = storage.take_inventory(tmp_path).couplings
    assert (coupling.state, coupling.header) == ("damaged", None)
    assert garbage(str(tmp_path), needed=[]) == []


def test_partial_couplings_are_garbage_when_nobody_writes_them(format, store):
    whole = formula.write(store, formula.header(format, 7))
    part = begin(store, formula.header(format, 7, fingerprint="cd" * 32), 4)
    assert garbage(store, now=time.time()) == []
    (found,) = garbage(store)
    assert (found.kind, found.url, found.fingerprint) == ("partial", part, "cd" * 32)
    assert found.names[-1].endswith("_header.json")
    storage.remove(store, found)
    assert folders(store) == {whole}
    assert storage.verify_pairs(whole, progress=False).ok


def test_removing_is_safe_to_break_off(format, tmp_path):
    """However much of a complete coupling is gone, what is left never reads as whole."""
    header = formula.header(format, 20)
    number = len(garbage(str(formula.write(str(tmp_path / "0"), header) and tmp_path / "0"), needed=[])[0].names)
    for count in range(1, number):
        store = str(tmp_path / str(count))
        url = formula.write(store, header)
        (found,) = garbage(store, needed=[])
        assert found.kind == "unreferenced"
        cut = storage.Garbage(found.kind, found.url, found.names[:count], 0)
        storage.remove(store, cut)
        with pytest.raises(StoreError, match=r"partial|nobody committed"):
            storage.open_pairs(url)
        formula.write(store, header)
        assert storage.verify_pairs(url, progress=False).ok


def test_whole_couplings_stay_unless_it_is_said_which_are_needed(format, store):
    urls = [formula.write(store, formula.header(format, 7, fingerprint=letter * 64)) for letter in "abc"]
    assert garbage(store) == []
    found = garbage(store, needed=["a" * 64, "c" * 64])
    assert [(each.kind, each.url) for each in found] == [("unreferenced", urls[1])]
    assert garbage(store, needed=[], now=time.time()) == []


def test_leftovers_of_killed_writers_go_and_files_that_no_manifest_knows_stay(format, tmp_path):
    url = formula.write(str(tmp_path), formula.header(format, 7))
    before = {path for path in Path(url).rglob("*") if path.is_file()}
    leftover = Path(url) / "_records" / f".00003.json.{'0f' * 16}.tmp"
    others = [
        Path(url) / ("source/c.99.0" if format == "zarr" else "part-00099.parquet"),
        Path(url) / "_records" / f".diary.{'0f' * 16}.tmp",
        Path(url) / "notes.txt",
    ]
    for path in (leftover, *others):
        path.write_bytes(b"half")
    (found,) = garbage(str(tmp_path))
    assert (found.kind, [tmp_path / name for name in found.names]) == ("temporary", [leftover])
    (coupling,) = storage.take_inventory(tmp_path).couplings
    assert {tmp_path / name for name in coupling.stray} == set(others)
    for each in garbage(str(tmp_path), needed=[]):  # the whole of it, and what lies beside it stays
        storage.remove(tmp_path, each)
    assert {path for path in Path(url).rglob("*") if path.is_file()} == set(others)
    assert leftover not in before


@pytest.mark.parametrize("linked", ["pairs/{name}", "pairs"])
def test_a_coupling_on_another_disk_is_seen_behind_its_link(format, tmp_path, linked):
    url = formula.write(str(tmp_path / "store"), formula.header(format, 7))
    place = tmp_path / "store" / linked.format(name=Path(url).name)
    place.rename(tmp_path / "moved")
    place.symlink_to(tmp_path / "moved")
    (tmp_path / "moved" / "round").symlink_to(tmp_path / "store")
    inventory = storage.take_inventory(tmp_path / "store")
    assert [(each.url, each.state, each.stray) for each in inventory.couplings] == [(url, "complete", ())]
    assert inventory.is_store


def job(store: Path, name: str, *files: str, submission_id: str | None = None) -> Path:
    folder = store / "jobs" / name
    folder.mkdir(parents=True)
    context = {"submission_id": submission_id or name, "flow_run_id": "f"}
    (folder / "request.json").write_text(json.dumps({"parameters": {}, "context": context}))
    for file in files:
        (folder / file).write_text("{}")
    return folder


def test_old_job_folders_are_garbage(tmp_path):
    job(tmp_path, "pair-1", "result.json")
    job(tmp_path, "pair-2", "error.json", "mine.txt", f".result.json.{'0f' * 16}.tmp")
    job(tmp_path, "pair-3")
    job(tmp_path, "pair-4", "result.json")
    job(tmp_path, "pair-5")
    states = {Path(each.url).name: each.state for each in storage.take_inventory(tmp_path).jobs}
    assert {name: states[f"pair-{name}"] for name in (1, 2, 3)} == {1: "finished", 2: "failed", 3: "unfinished"}
    young, long_ago = time.time() + 2 * DAY_S, time.time() - 31 * DAY_S
    for path in (tmp_path / "jobs" / "pair-4").iterdir():
        os.utime(path, (young, young))
    os.utime(tmp_path / "jobs" / "pair-5" / "request.json", (long_ago, long_ago))
    for each in garbage(str(tmp_path)):
        storage.remove(tmp_path, each)
    left = {path.relative_to(tmp_path / "jobs").as_posix() for path in (tmp_path / "jobs").rglob("*.*")}
    # One that has left no word may wait for a GPU, for weeks.
    assert left == {"pair-2/mine.txt", "pair-3/request.json", "pair-4/request.json", "pair-4/result.json"}


@pytest.mark.parametrize("other", ["zarr", "parquet"])
@pytest.mark.parametrize("shard_size", [None, 1, 9, 1000])
def test_an_export_has_the_same_content_and_fingerprint(format, store, tmp_path, other, shard_size):
    url = formula.write(store, formula.header(format, 7))
    source = storage.open_pairs(url)
    copy_url = storage.export_pairs(url, other, store_url=tmp_path / "copy", shard_size=shard_size, progress=False)
    copy = storage.open_pairs(copy_url)
    assert copy_url == storage.pairs_url(tmp_path / "copy", "ab" * 32, other)
    assert copy.manifest.shard_size == (shard_size or 7)
    same = ("content_sha256", "fingerprint", "spec", "dataset", "engine", "summary", "num_rows")
    for name in same:
        assert getattr(copy.manifest, name) == getattr(source.manifest, name)
    for name in ("source", "target", "sample_id"):
        np.testing.assert_array_equal(np.asarray(getattr(copy, name)), np.asarray(getattr(source, name)))
    assert storage.verify_pairs(copy_url, progress=False).ok
    assert storage.export_pairs(url, other, store_url=tmp_path / "copy", progress=False) == copy_url


def test_an_export_goes_on_where_it_was(format, tmp_path, monkeypatch):
    url = formula.write(str(tmp_path / "store"), formula.header(format, 7))
    copy_url = begin(str(tmp_path / "copy"), formula.header("parquet", 4), 6)
    written: list[int] = []

    def write(*given):
        written.append(given[2])
        real(*given)

    monkeypatch.setattr("storage.export.write_shard", write)
    assert storage.export_pairs(url, "parquet", store_url=tmp_path / "copy", progress=False) == copy_url
    assert written == [6, 7, 8, 9]
    assert storage.verify_pairs(copy_url, progress=False).ok


real = storage.write_shard


def test_exports_that_cannot_be(format, tmp_path):
    url = formula.write(str(tmp_path), formula.header(format, 7))
    with pytest.raises(SpecError, match="the copy would lie where the pairs lie"):
        storage.export_pairs(url, format, store_url=storage.store_of(url), shard_size=3)
    with pytest.raises(SpecError, match="zarr or parquet, got 'csv'"):
        storage.export_pairs(url, "csv", store_url=tmp_path / "copy")  # type: ignore[arg-type]
    for shard_size in (-3, 0, 2.5):
        with pytest.raises(SpecError, match="shard_size"):
            storage.export_pairs(url, format, store_url=tmp_path / "copy", shard_size=shard_size)  # type: ignore[arg-type]
    assert not (tmp_path / "copy").exists()
    storage.export_pairs(url, format, store_url=tmp_path / "copy", progress=False)
    with pytest.raises(ShardConflictError, match="shards of 7 rows, asked for 3"):
        storage.export_pairs(url, format, store_url=tmp_path / "copy", shard_size=3)
    part = begin(str(tmp_path / "part"), formula.header(format, 7), 2)
    with pytest.raises(StoreError, match="partial, 2 of 6"):
        storage.export_pairs(part, format, store_url=tmp_path / "other")
    damaged = Path(url) / ("source/c.3.0" if format == "zarr" else "part-00003.parquet")
    damaged.write_bytes(damaged.read_bytes()[:-1])
    with pytest.raises(ShardCorruptError, match="shard 3 is damaged"):
        storage.export_pairs(url, format, store_url=tmp_path / "third", progress=False)
    assert not storage.has_manifest(storage.pairs_url(tmp_path / "third", "ab" * 32, format))


def test_where_a_coupling_lies(format, store):
    url = formula.write(store, formula.header(format, 40))
    assert storage.pairs_url(storage.store_of(url), "ab" * 32, format) == url
    for other in (store, f"{store}/pairs/x.zarr", f"{url}/source", f"{store}/{'ab' * 32}.zarr"):
        with pytest.raises(StoreError, match="does not lie in a store"):
            storage.store_of(other)


def test_a_store_that_cannot_be_listed():
    with pytest.raises(StoreError, match=r"cannot list|cannot be opened"):
        storage.take_inventory("nonsense://bucket")
