"""Real disks that are full or may not be written: a clear error, nothing half-written, and a rerun goes on."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import storage
from pairflow.errors import StoreError

from . import storage_formula as formula

SCRIPT = Path(formula.__file__)


@pytest.fixture
def mount(tmp_path) -> Iterator[Callable[..., Path]]:
    """Mounts small filesystems of memory, and takes them away again."""
    mounted: list[Path] = []

    def mount(*arguments: str, at: Path | None = None) -> Path:
        place = at or tmp_path / f"mount-{len(mounted)}"
        place.mkdir(exist_ok=True)
        done = subprocess.run(["mount", *arguments, str(place)], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"this user may not mount: {done.stderr.strip()}")
        mounted.append(place)
        return place

    yield mount
    for place in reversed(mounted):
        subprocess.run(["umount", str(place)], check=True)


def noise(header: storage.PairsHeader) -> tuple[np.ndarray, np.ndarray]:
    """Source and target that do not compress."""
    rng = np.random.default_rng(0)
    source, target = rng.integers(0, 256, (2, header.num_rows, header.length), np.uint8)
    return source, target


def test_a_disk_that_fills_up(format, mount, tmp_path, snapshot):
    header = formula.header(format, 500, num_rows=4000, length=128, vocab_size=256)
    source, target = noise(header)

    def write(store: Path) -> None:
        url = storage.pairs_url(store, header.fingerprint, format)
        planned = storage.begin_pairs(url, header)
        for shard in storage.missing_shards(url, planned):
            rows = slice(shard.start, shard.stop)
            written.append(shard.index)
            storage.write_shard(url, planned, shard.index, source[rows], target[rows], np.arange(*rows.indices(4000)))
        storage.commit_pairs(url, planned, {}, progress=False)

    written: list[int] = []
    disk = mount("-t", "tmpfs", "-o", "size=640k", "tmpfs")
    url = storage.pairs_url(disk, header.fingerprint, format)
    with pytest.raises(StoreError, match=r"cannot write .*No space left on device; free some space and run again"):
        write(disk)
    full_at = written[-1]
    assert 0 < full_at < 7
    assert not list(disk.rglob(".*"))  # the temporary file is gone, or there would be no room for the next one
    with pytest.raises(StoreError, match=rf"partial, {full_at} of 8 shards"):
        storage.open_pairs(url)
    subprocess.run(["mount", "-o", "remount,size=4m", str(disk)], check=True)
    written.clear()
    write(disk)
    assert written == list(range(full_at, 8))
    write(tmp_path / "undisturbed")
    assert snapshot(url) == snapshot(storage.pairs_url(tmp_path / "undisturbed", header.fingerprint, format))


def test_a_disk_without_room_for_the_manifest(format, mount):
    """All shards are there, the commit fails: the coupling stays partial, and a rerun only commits."""
    header = formula.header(format, 1, num_rows=40)
    disk = mount("-t", "tmpfs", "-o", "size=4m", "tmpfs")
    url = storage.pairs_url(disk, header.fingerprint, format)
    storage.begin_pairs(url, header)
    formula.write_missing(url, header)
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):  # until there is no space left
        while file.write(bytes(4096)):
            pass
    with pytest.raises(StoreError, match=r"cannot write .*_manifest\.json: No space left"):
        storage.commit_pairs(url, header, {}, progress=False)
    with pytest.raises(StoreError, match="nobody committed"):
        storage.open_pairs(url)
    filler.unlink()
    formula.write(str(disk), header)
    assert storage.verify_pairs(url, progress=False).ok


def test_a_disk_that_is_mounted_read_only(format, mount, snapshot):
    disk = mount("-t", "tmpfs", "-o", "size=4m", "tmpfs")
    url = formula.write(str(disk), formula.header(format, 7))
    part = storage.pairs_url(disk, "cd" * 32, format)
    header = storage.begin_pairs(part, formula.header(format, 7, fingerprint="cd" * 32))
    before = snapshot(disk)
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    message = r"cannot write .*Read-only file system; choose a store on a disk that is not mounted read-only"
    with pytest.raises(StoreError, match=message):
        storage.write_shard(part, header, 0, *formula.rows(header, 0, 7))
    with pytest.raises(StoreError, match=message):
        formula.write(str(disk), formula.header(format, fingerprint="ef" * 32))
    with pytest.raises(StoreError, match=r"cannot delete .*Read-only file system"):
        storage.remove(disk, storage.Garbage("partial", part, (f"pairs/{Path(part).name}/_header.json",), 0))
    assert snapshot(disk) == before
    np.testing.assert_array_equal(storage.open_pairs(url).source[:], formula.rows(formula.header(format))[0])
    assert storage.verify_pairs(url, progress=False).ok
    assert [each.state for each in storage.take_inventory(disk).couplings] == ["complete", "partial"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become a user who may not write")
def test_a_folder_that_this_user_may_not_write(format, mount):
    """As nobody, in a process of its own: root may write anywhere."""
    disk = mount("-t", "tmpfs", "-o", "size=4m,mode=0755", "tmpfs")
    # A user who may not enter the test's folders gets at this one by being put there.
    code = (
        "import os, sys; sys.path[:0] = sys.argv[1:3]\n"
        "import storage_formula as f, storage, zarr, pyarrow.parquet\n"
        "os.chdir(sys.argv[3]); os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "f.write('.', f.header(sys.argv[4]))\n"
    )
    command = [sys.executable, "-c", code, str(SCRIPT.parents[2]), str(SCRIPT.parent), str(disk), format]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Permission denied; choose a store that this user may write" in done.stderr, done.stderr
    assert list(disk.iterdir()) == []
