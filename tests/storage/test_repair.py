"""What is damaged is put back from what is sound: the same bytes, and only the shards that need it are made again."""

import json
import random
import re
from pathlib import Path

import pytest

import storage
from pairflow.errors import ShardConflictError, ShardCorruptError, StoreError

from . import storage_formula as formula


def flip(path: Path, place: int, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1 << bit
    path.write_bytes(data)


def flip_anywhere(path: Path, seed: int) -> None:
    rng = random.Random(seed)  # noqa: S311
    flip(path, rng.randrange(path.stat().st_size), rng.randrange(8))


def make_again(url: str, shards: list[int]) -> None:
    """What the pair job does with the shards that are named."""
    header = storage.begin_pairs(url, formula.header(Path(url).suffix[1:]))
    for index in shards:
        shard = header.shard(index)
        storage.write_shard(url, header, index, *formula.rows(header, shard.start, shard.stop))


@pytest.mark.parametrize("seed", range(2))
def test_one_flipped_bit_of_any_file_is_repaired(format, tmp_path, snapshot, seed):
    """Of every file in turn: found by name, its shard alone made again if it is a shard's; then every byte is back."""
    url = formula.write(str(tmp_path), formula.header(format, 7))
    sound = snapshot(url)
    for name in sorted(sound):
        flip_anywhere(Path(url) / name, seed)
        (bad,) = storage.verify_pairs(url, progress=False).bad
        assert bad.path == str(Path(url) / name)
        done = storage.restore_pairs(url)
        shard = re.search(r"(?:/c\.|part-)(\d+)", name)
        if shard is None:
            assert (done.restored, done.bad_shards, done.lost) == ([bad.path], [], [])
        else:
            assert (done.restored, done.bad_shards, done.lost) == ([], [int(shard[1])], [])
            with pytest.raises(ShardCorruptError, match=rf"shard {bad.index} is damaged: .*{re.escape(name)}"):
                storage.open_pairs(url).shard(int(shard[1]))
            make_again(url, done.bad_shards)
        assert snapshot(url) == sound
    assert storage.restore_pairs(url) == storage.Restoration(url)


def manifest_places(data: bytes) -> list[tuple[int, int]]:
    """(place, bit) all over a manifest, and in every part that only it knows."""
    rng = random.Random(5)  # noqa: S311
    marks = (b'"summary": {', b'keep_rate": 0', b'"created_by": "pairf', b'"document_sha256": "', b'"format_version": ')
    places = [data.index(mark) + offset for mark in marks for offset in (2, len(mark) - 1, len(mark), len(mark) + 3)]
    return [(place, rng.randrange(8)) for place in [*places, *(rng.randrange(len(data)) for _ in range(12))]]


def test_a_manifest_too_large_to_try_every_bit_is_put_together_again(format, tmp_path, snapshot):
    url = formula.write(str(tmp_path), formula.header(format, 2))
    sound = snapshot(url)
    manifest = Path(url) / "_manifest.json"
    assert manifest.stat().st_size > 8 * 1024
    for place, bit in manifest_places(manifest.read_bytes()):
        flip(manifest, place, bit)
        with pytest.raises(ShardCorruptError, match=r"_manifest\.json"):
            storage.open_pairs(url)
        done = storage.restore_pairs(url)
        assert done == storage.Restoration(url, [str(manifest)])
        assert snapshot(url) == sound, (place, bit)


def test_a_manifest_beyond_salvage_loses_its_summary_and_says_so(format, tmp_path, snapshot):
    url = formula.write(str(tmp_path), formula.header(format, 2))
    sound, before = snapshot(url), storage.open_pairs(url).manifest
    manifest = Path(url) / "_manifest.json"
    for damage in (b"", b"{", sound["_manifest.json"][:-100], sound["_manifest.json"].replace(b"0.25", b"0.52")):
        manifest.write_bytes(damage)
        done = storage.restore_pairs(url)
        assert done.restored == [str(manifest)]
        (lost,) = done.lost
        assert "its summary" in lost
        assert storage.find_manifest(url) == before.model_copy(update={"summary": {}})
        assert storage.verify_pairs(url, progress=False).ok


def test_a_damaged_manifest_and_a_damaged_shard(format, tmp_path, snapshot):
    """The manifest goes, for it cannot be checked; the pairs are partial then, and end as they were."""
    url = formula.write(str(tmp_path), formula.header(format, 2))
    sound = snapshot(url)
    (Path(url) / "_manifest.json").write_bytes(sound["_manifest.json"][:-100])
    flip_anywhere(Path(url) / ("source/c.4.0" if format == "zarr" else "part-00004.parquet"), 1)
    done = storage.restore_pairs(url)
    assert done.bad_shards == [4]
    assert "figures of the run" in done.lost[0]
    assert not storage.has_manifest(url)
    header = storage.begin_pairs(url, formula.header(format))
    assert [shard.index for shard in storage.missing_shards(url, header)] == [4]
    formula.write(str(tmp_path), header)
    assert snapshot(url) == sound


def test_damaged_in_several_places_at_once(format, tmp_path, snapshot):
    url = formula.write(str(tmp_path), formula.header(format, 2))
    sound = snapshot(url)
    names = ["_manifest.json", "_header.json", "_records/00003.json", "_records/00011.json"]
    names += ["zarr.json", "source/zarr.json"] if format == "zarr" else []
    for seed, name in enumerate(names):
        flip_anywhere(Path(url) / name, seed)
    done = storage.restore_pairs(url)
    assert set(done.restored) == {str(Path(url) / name) for name in names}
    assert (done.bad_shards, done.lost) == ([], [])
    assert snapshot(url) == sound


def test_header_and_manifest_beyond_repair_need_somebody_who_knows(format, tmp_path, snapshot):
    header = formula.header(format, 2)
    url = formula.write(str(tmp_path), header)
    sound = snapshot(url)
    for name in ("_manifest.json", "_header.json"):
        (Path(url) / name).write_bytes(b"{")
    with pytest.raises(ShardCorruptError, match=r"header and manifest are both beyond repair: move .* away"):
        storage.restore_pairs(url)
    done = storage.restore_pairs(url, header)
    assert [Path(path).name for path in done.restored] == ["_header.json", "_manifest.json"]
    assert {name: data for name, data in snapshot(url).items() if name != "_manifest.json"} == {
        name: data for name, data in sound.items() if name != "_manifest.json"
    }


def test_files_that_are_gone_come_back(format, tmp_path, snapshot):
    url = formula.write(str(tmp_path), formula.header(format, 7))
    sound = snapshot(url)
    for name in sound:
        if name != "_manifest.json" and not re.search(r"/c\.|part-", name):
            (Path(url) / name).unlink()
    assert storage.restore_pairs(url).bad_shards == []
    assert snapshot(url) == sound


def test_only_committed_pairs_of_this_coupling_are_restored(format, tmp_path):
    header = formula.header(format, 7)
    url = storage.pairs_url(tmp_path, header.fingerprint, format)
    with pytest.raises(StoreError, match="no pairs at"):
        storage.restore_pairs(url)
    storage.begin_pairs(url, header)
    with pytest.raises(StoreError, match="partial, 0 of 6"):
        storage.restore_pairs(url)
    formula.write(str(tmp_path), header)
    (Path(url) / "_manifest.json").write_bytes(b"{")
    with pytest.raises(ShardConflictError, match="another coupling"):
        storage.restore_pairs(url, formula.header(format, 7, engine="cuda/1"))


def test_what_is_salvaged_is_a_valid_manifest(tmp_path):
    """The largest part, the summary, is checked by the hash of the whole: JSON that merely parses is not enough."""
    url = formula.write(str(tmp_path), formula.header("parquet", 2))
    manifest = Path(url) / "_manifest.json"
    text = manifest.read_bytes()
    assert json.loads(text)["summary"] == {"keep_rate": 0.25, "seconds": 1.5}
    manifest.write_bytes(text.replace(b"1.5", b"9.5").replace(b"0.25", b"0.35"))
    assert "its summary" in storage.restore_pairs(url).lost[0]
    assert storage.open_pairs(url).manifest.summary == {}
