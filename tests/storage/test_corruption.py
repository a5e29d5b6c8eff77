"""One flipped bit in any file is found and named, and never read as data."""

import hashlib
import json
import random
import re
from pathlib import Path

import numpy as np
import pytest

import storage
from pairflow.errors import ManifestVersionError, ShardCorruptError, StoreError
from storage.documents import parse_document

from . import storage_formula as formula

SHARD_FILES = {"zarr": ["sample_id/c.3", "target/c.3.0", "source/c.3.0"], "parquet": ["part-00003.parquet"]}


@pytest.fixture
def url(format, tmp_path) -> str:
    return formula.write(str(tmp_path), formula.header(format, 7))


def flip(path: Path, seed: int) -> None:
    rng = random.Random(seed)  # noqa: S311
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


@pytest.mark.parametrize("seed", range(4))
def test_a_flipped_bit_of_any_file_is_found_and_named(url, snapshot, seed):
    """Of every file of the coupling in turn; the others stay unsuspected."""
    for name in sorted(snapshot(url)):
        path = Path(url) / name
        sound = path.read_bytes()
        flip(path, seed)
        report = storage.verify_pairs(url, progress=False)
        assert not report.ok, f"{name}: a flipped bit was not found"
        assert {bad.path for bad in report.bad} == {str(path)}
        shard = re.search(r"(?:/c\.|part-|_records/)(\d+)", name)
        assert {bad.index for bad in report.bad} == {int(shard[1]) if shard else None}
        path.write_bytes(sound)
    assert storage.verify_pairs(url, progress=False).ok


@pytest.mark.parametrize("seed", range(3))
def test_reading_a_flipped_shard_raises_with_path_and_shard(format, url, seed):
    for name in SHARD_FILES[format]:
        path = Path(url) / name
        sound = path.read_bytes()
        flip(path, seed)
        column = getattr(storage.open_pairs(url), name.split("/")[0] if format == "zarr" else "source")
        np.testing.assert_array_equal(column[:21], column[0:21])  # shards 0 to 2 are sound
        with pytest.raises(ShardCorruptError, match=r"shard 3 is damaged: .*hash mismatch") as caught:
            column[25]
        assert str(path) in str(caught.value)
        path.write_bytes(sound)


@pytest.mark.parametrize("name", ["_manifest.json", "zarr.json", "target/zarr.json"])
def test_opening_with_a_flipped_description_raises(tmp_path, name):
    url = formula.write(str(tmp_path), formula.header("zarr"))
    path = Path(url) / name
    data = path.read_bytes()
    place = data.index(b'"shape"') + 1
    path.write_bytes(data[:place] + bytes([data[place] ^ 2]) + data[place + 1 :])
    with pytest.raises(ShardCorruptError) as caught:
        storage.open_pairs(url)
    assert str(path) in str(caught.value)


def test_verify_names_every_bad_shard_and_why(format, url, tmp_path):
    first, second, third = (
        Path(url) / (f"source/c.{index}.0" if format == "zarr" else f"part-0000{index}.parquet") for index in (1, 3, 5)
    )
    first.unlink()
    second.write_bytes(second.read_bytes()[:-9])
    third.write_bytes(third.read_bytes() + b"more")
    report = storage.verify_pairs(url, progress=False)
    found = [(bad.index, bad.reason.split(":")[0], bad.path) for bad in report.bad]
    assert found == [(1, "missing", str(first)), (3, "short", str(second)), (5, "long", str(third))]
    assert (report.num_shards, report.ok, report.url) == (6, False, url)
    with pytest.raises(ShardCorruptError, match=r"shard 1 is damaged.*missing"):
        storage.open_pairs(url).source[:]


def test_bad_shards_are_repaired_alone_and_in_place(format, url, snapshot):
    sound = snapshot(url)
    for name in SHARD_FILES[format]:
        flip(Path(url) / name, 0)
    header = storage.open_pairs(url).manifest.header
    (index,) = {bad.index for bad in storage.verify_pairs(url, progress=False).bad}
    assert index is not None
    shard = header.shard(index)
    storage.write_shard(url, header, index, *formula.rows(header, shard.start, shard.stop))
    assert snapshot(url) == sound


def test_a_shard_of_another_coupling_is_named_as_such(tmp_path):
    url = formula.write(str(tmp_path), formula.header("parquet"))
    other = formula.write(str(tmp_path), formula.header("parquet", fingerprint="ef" * 32))
    for name in ("part-00002.parquet", "_records/00002.json"):
        (Path(url) / name).write_bytes((Path(other) / name).read_bytes())
    report = storage.verify_pairs(url, progress=False)
    assert [bad.index for bad in report.bad] == [2, 2]
    assert all("wrong fingerprint" in bad.reason for bad in report.bad)


def test_a_shard_of_another_shape_is_named_as_such(tmp_path):
    url = formula.write(str(tmp_path), formula.header("parquet"))
    other = formula.write(str(tmp_path / "other"), formula.header("parquet", length=9))
    name = "part-00002.parquet"
    (Path(url) / name).write_bytes((Path(other) / name).read_bytes())
    (bad,) = storage.verify_pairs(url, progress=False).bad
    assert bad.index == 2
    assert bad.reason.startswith("wrong shape")


def test_swapped_shards_are_found(format, url):
    """Each file is sound in itself and of the same size, perhaps; it is in the wrong place."""
    names = [f"target/c.{k}.0" if format == "zarr" else f"part-0000{k}.parquet" for k in (0, 1)]
    first, second = ((Path(url) / name).read_bytes() for name in names)
    (Path(url) / names[0]).write_bytes(second)
    (Path(url) / names[1]).write_bytes(first)
    assert [bad.index for bad in storage.verify_pairs(url, progress=False).bad] == [0, 1]


def rewrite(path: Path, **changes: object) -> None:
    """A document changed by somebody who knows how its hash is made."""
    fields = json.loads(path.read_bytes()) | changes | {"document_sha256": "0" * 64}
    text = json.dumps(fields, indent=2, sort_keys=True) + "\n"
    digest = hashlib.sha256(text.encode()).hexdigest()
    path.write_text(text.replace(f'"document_sha256": "{"0" * 64}"', f'"document_sha256": "{digest}"'))


@pytest.mark.parametrize("name", ["_manifest.json", "_header.json"])
def test_another_format_version_is_refused(format, url, name):
    rewrite(Path(url) / name)
    storage.open_pairs(url)  # the same fields: nothing has changed
    rewrite(Path(url) / name, format_version=2)
    header = formula.header(format)
    attempt = storage.open_pairs if name == "_manifest.json" else lambda url: storage.begin_pairs(url, header)
    with pytest.raises(ManifestVersionError, match=f"{name} has format version 2; this release reads version 1"):
        attempt(url)


@pytest.mark.parametrize(
    "change",
    [
        {"unknown": 1},
        {"fingerprint": "x"},
        {"shard_size": 8},
        {"shards": []},
        {"num_rows": 2**62, "shard_size": 1},  # a plan that no memory holds
        {"kind": "pairs-header"},
        {"dtype": "uint16"},
        {"metadata": [{"name": "../../secret", "num_bytes": 0, "sha256": "0" * 64}]},
        {"metadata": [{"name": "/etc/passwd", "num_bytes": 0, "sha256": "0" * 64}]},
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(url, change):
    rewrite(Path(url) / "_manifest.json", **change)
    with pytest.raises(ShardCorruptError, match=r"_manifest\.json"):
        storage.open_pairs(url)
    (bad,) = storage.verify_pairs(url, progress=False).bad
    assert bad.index is None


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"null", b"\xff\xfe", b'{"format_version": true}', b"[" * 99_999])
def test_rubbish_for_a_manifest_is_refused(data):
    with pytest.raises(ShardCorruptError, match="here"):
        parse_document(storage.Manifest, data, "here")


def test_a_header_that_is_damaged_stops_a_rerun(format, tmp_path):
    header = formula.header(format)
    url = storage.pairs_url(tmp_path, header.fingerprint, format)
    storage.begin_pairs(url, header)
    (Path(url) / "_header.json").write_bytes(b"{")
    for attempt in (storage.begin_pairs, storage.missing_shards):
        with pytest.raises(StoreError, match=r"_header\.json is damaged"):
            attempt(url, header)
