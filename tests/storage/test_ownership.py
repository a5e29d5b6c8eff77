"""What in a store is ours: told by what it says, and never by a name alone."""

import os
import time
from pathlib import Path

import pytest

import storage
from pairflow.errors import StoreError

from . import storage_formula as formula

DAY_S = 24 * 3600.0


def begin(store, header, num_shards):
    """A coupling of which some shards are written."""
    url = storage.pairs_url(store, header.fingerprint, header.format)
    header = storage.begin_pairs(url, header)
    for shard in header.plan()[:num_shards]:
        storage.write_shard(url, header, shard.index, *formula.rows(header, shard.start, shard.stop))
    return url


def garbage(store, **options):
    """What a day later nobody needs."""
    return storage.find_garbage(
        storage.take_inventory(store), older_than_s=DAY_S, now=time.time() + 2 * DAY_S, **options
    )


def test_a_partial_coupling_goes_without_what_others_put_into_its_folder(format, tmp_path):
    url = Path(begin(str(tmp_path), formula.header(format, 7), 3))
    (url / "_records" / "readme.md").write_text("mine")
    (url / "plot.png").write_bytes(b"mine")
    for each in garbage(str(tmp_path)):
        storage.remove(tmp_path, each)
    assert sorted(path.name for path in url.rglob("*") if path.is_file()) == ["plot.png", "readme.md"]


@pytest.mark.parametrize("what", ["nothing of ours", "a header of another", "a renamed folder"])
def test_a_folder_that_is_only_called_as_a_coupling_is_never_garbage(format, tmp_path, what):
    folder = tmp_path / "pairs" / f"{'ef' * 32}.{format}"
    folder.mkdir(parents=True)
    (folder / "zarr.json").write_text('{"mine": 1}')
    if what == "a header of another":
        (folder / "_header.json").write_text('{"kind": "pairs-header", "fingerprint": "' + "ef" * 32 + '"}')
    elif what == "a renamed folder":
        other = begin(str(tmp_path / "other"), formula.header(format, 7), 2)
        (folder / "_header.json").write_bytes((Path(other) / "_header.json").read_bytes())
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for each in garbage(str(tmp_path), needed=[]):
        storage.remove(tmp_path, each)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    "text",
    [
        "sbatch --time 1:00 train.sh",
        "{}",
        '{"parameters": {}, "context": {"submission_id": "another", "flow_run_id": "f"}}',
        '{"parameters": {}, "context": []}',
        "[" * 100_000,
    ],
)
def test_a_folder_of_jobs_of_another_program_is_not_ours(tmp_path, text):
    folder = tmp_path / "jobs" / "slurm"
    folder.mkdir(parents=True)
    for name in ("request.json", "result.json", "train.sh"):
        (folder / name).write_text(text)
    inventory = storage.take_inventory(tmp_path)
    assert (inventory.jobs, inventory.is_store) == ((), False)
    assert garbage(str(tmp_path)) == []


def test_a_store_says_that_it_is_one(format, tmp_path):
    assert storage.take_inventory(tmp_path / "not there").is_store
    assert storage.take_inventory(tmp_path).is_store
    (tmp_path / ".probe-12").write_bytes(b"")  # of a process that was killed while it tried whether it may write
    assert storage.take_inventory(tmp_path).is_store
    (tmp_path / "thesis.tex").write_text("mine")
    assert not storage.take_inventory(tmp_path).is_store
    begin(str(tmp_path), formula.header(format, 7), 1)
    assert storage.take_inventory(tmp_path).is_store


@pytest.mark.skipif(os.getuid() == 0, reason="root may list every folder")
def test_a_folder_that_cannot_be_listed_does_not_count_as_empty(format, tmp_path):
    url = Path(begin(str(tmp_path), formula.header(format, 7), 1))
    (url / "_records").chmod(0)
    try:
        with pytest.raises(StoreError, match="cannot list"):
            storage.take_inventory(tmp_path)
    finally:
        (url / "_records").chmod(0o700)
