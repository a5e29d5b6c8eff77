"""Prepared data in a store: whole or nothing, open to plain readers, known to housekeeping."""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import storage
from pairflow.errors import ShardCorruptError, StoreError
from storage.filesystem import LocalFolder

from . import storage_formula as formula

DAY_S = 24 * 3600.0
NUM_ROWS, LENGTH = 40, 6
TRAIN = "cd" * 32  # the digest of the data that the formula's pairs are of


def header(format: str, **changes: object) -> storage.DatasetHeader:
    fields = {
        "fingerprint": "ef" * 32,
        "format": format,
        "name": "formula",
        "data_kind": "tokens",
        "num_rows": NUM_ROWS,
        "length": LENGTH,
        "vocab_size": 300,
        "has_labels": True,
        "shard_size": 7,
        "digest": "12" * 32,
        "splits": {"train": 36, "test": 4},
        "digests": {"train": TRAIN, "test": "34" * 32},
        "spec": {"name": "tokens"},
        "files": [{"name": "my rows.npy", "num_bytes": 3, "sha256": "56" * 32}],
        "reader": "tokens/1",
        "report": {"source": "my rows.npy", "rows_read": 41, "rows_kept": 40, "dropped": {"empty": 1}},
    }
    return storage.DatasetHeader.model_validate(fields | changes)


def columns() -> dict[str, np.ndarray]:
    row, position = np.arange(NUM_ROWS)[:, None], np.arange(LENGTH)
    tokens = ((row * 7 + position * 31) % 300).astype(np.uint16)
    return {
        "tokens": tokens,
        "held_out": np.arange(NUM_ROWS) % 10 == 3,
        "label": (np.arange(NUM_ROWS) % 5).astype("u1"),
    }


def write(store: str, format: str, **changes: object) -> str:
    url = storage.dataset_url(store, "ef" * 32)
    storage.write_dataset(url, header(format, **changes), columns())
    return url


@pytest.mark.parametrize("shard_size", [1, 7, 1000])
def test_round_trip(format, store, shard_size):
    url = write(store, format, shard_size=shard_size)
    manifest = storage.find_dataset(url)
    assert manifest is not None
    assert manifest.header == header(format, shard_size=shard_size)
    found = storage.read_dataset(url, manifest)
    assert sorted(found) == ["held_out", "label", "tokens"]
    for name, values in columns().items():
        np.testing.assert_array_equal(found[name], values)
        assert found[name].dtype == values.dtype
    assert storage.verify_dataset(url).ok
    assert storage.search_datasets(store, "efef") == [url]


def test_plain_readers(format, tmp_path):
    """With neither our code nor our documents: zarr's group, pandas' folder of Parquet files."""
    url = write(str(tmp_path), format)
    if format == "zarr":
        import zarr

        group: Any = zarr.open_group(url, mode="r")
        for name, values in columns().items():
            np.testing.assert_array_equal(group[name][...], values)
        assert group.attrs["pairflow"]["report"]["dropped"] == {"empty": 1}
        return
    import pandas as pd

    table = pd.concat([pd.read_parquet(path) for path in sorted(Path(url).glob("*.parquet"))])
    np.testing.assert_array_equal(np.stack(list(table["tokens"])), columns()["tokens"])
    np.testing.assert_array_equal(table["held_out"], columns()["held_out"])
    np.testing.assert_array_equal(table["label"], columns()["label"])


def test_a_writer_that_dies_leaves_nothing_that_counts(format, tmp_path, monkeypatch, snapshot):
    """At each of its writes; who comes after it makes all of it, the same bytes, and a third changes nothing."""
    undisturbed = snapshot(write(str(tmp_path / "undisturbed"), format))
    url = storage.dataset_url(tmp_path / "killed", "ef" * 32)
    whole_write, left = LocalFolder.write, 0

    def write_some(self, name, data):
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        whole_write(self, name, data)

    for number in range(len(undisturbed)):
        left = number
        monkeypatch.setattr(LocalFolder, "write", write_some)
        with pytest.raises(KeyboardInterrupt):
            write(str(tmp_path / "killed"), format)
        monkeypatch.setattr(LocalFolder, "write", whole_write)
        assert storage.find_dataset(url) is None
        (found,) = storage.take_inventory(tmp_path / "killed").datasets or (None,)
        assert (found is None) == (number == 0)
        assert found is None or found.state == "partial"
    assert snapshot(write(str(tmp_path / "killed"), format)) == undisturbed
    monkeypatch.setattr(LocalFolder, "write", write_some)
    left = 0
    assert snapshot(write(str(tmp_path / "killed"), format)) == undisturbed


def test_damage_of_any_file_is_named(format, tmp_path):
    url = Path(write(str(tmp_path), format))
    for path in [each for each in url.rglob("*") if each.is_file()]:
        sound = path.read_bytes()
        for damaged in (sound[:-1], sound[:-1] + bytes([sound[-1] ^ 1]), None):
            path.unlink()
            if damaged is not None:
                path.write_bytes(damaged)
            if path.name == "_manifest.json":
                if damaged is None:
                    assert storage.find_dataset(url) is None
                    with pytest.raises(StoreError, match="pairflow prepare"):
                        storage.verify_dataset(url)
                    continue
                with pytest.raises(ShardCorruptError, match=r"_manifest\.json.*pairflow prepare"):
                    storage.find_dataset(url)
            report = storage.verify_dataset(url)
            assert [each.path for each in report.bad] == [str(path)]
            manifest = None if path.name == "_manifest.json" else storage.find_dataset(url)
            if manifest is not None and path.suffix != ".json":
                with pytest.raises(ShardCorruptError, match=path.name):
                    storage.read_dataset(url, manifest)
        path.write_bytes(sound)
    assert storage.verify_dataset(url).ok


class TestHousekeeping:
    @staticmethod
    def garbage(store, needed=None):
        inventory = storage.take_inventory(store)
        return storage.find_garbage(inventory, older_than_s=DAY_S, now=time.time() + 2 * DAY_S, needed=needed)

    def test_what_is_whole_stays_until_somebody_asks(self, format, tmp_path):
        url = write(str(tmp_path), format)
        assert self.garbage(tmp_path) == []
        assert self.garbage(tmp_path, [TRAIN]) == []
        (found,) = self.garbage(tmp_path, ["99" * 32])
        assert (found.kind, found.url) == ("unreferenced", url)
        (Path(url) / "mine.txt").write_text("mine")
        storage.remove(tmp_path, found)
        assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["mine.txt"]

    @pytest.mark.parametrize("readable", [True, False])
    def test_what_pairs_in_the_store_were_made_of_stays(self, format, tmp_path, readable):
        write(str(tmp_path), format)
        pairs = Path(formula.write(str(tmp_path), formula.header(format)))
        if not readable:  # it may have been made of any data
            (pairs / "_manifest.json").write_text("{}")
        found = self.garbage(tmp_path, [])
        assert [each.kind for each in found] == (["unreferenced"] if readable else [])
        assert all("/pairs/" in each.url for each in found)

    def test_a_partial_one_goes_without_what_others_put_there(self, format, tmp_path):
        url = Path(write(str(tmp_path), format))
        (url / "_manifest.json").unlink()
        (url / "notes.md").write_text("mine")
        (url / "part-99999.parquet").write_bytes(b"mine")
        (found,) = self.garbage(tmp_path)
        assert found.kind == "partial"
        storage.remove(tmp_path, found)
        assert sorted(path.name for path in url.rglob("*") if path.is_file()) == ["notes.md", "part-99999.parquet"]

    @pytest.mark.parametrize("what", ["nothing of ours", "a header of another", "a renamed folder"])
    def test_a_folder_that_is_only_called_so_is_never_garbage(self, format, tmp_path, what):
        folder = tmp_path / "datasets" / ("77" * 32)
        folder.mkdir(parents=True)
        (folder / "rows.bin").write_bytes(b"mine")
        if what == "a header of another":
            (folder / "_header.json").write_text(json.dumps({"kind": "dataset-header", "fingerprint": "77" * 32}))
        elif what == "a renamed folder":
            other = write(str(tmp_path / "other"), format)
            for path in [each for each in Path(other).rglob("*") if each.is_file()]:
                target = folder / path.relative_to(other)
                target.parent.mkdir(exist_ok=True)
                target.write_bytes(path.read_bytes())
        assert self.garbage(tmp_path, []) == []
