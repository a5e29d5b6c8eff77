"""Writers die at any point: nothing half-written reads as whole, and a rerun makes the rest, the same bytes."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

import storage
from pairflow.errors import ShardCorruptError, StoreError

from . import storage_formula as formula

SCRIPT = Path(formula.__file__)
ENVIRONMENT = os.environ | {"PYTHONPATH": str(SCRIPT.parents[2])}
NUM_ROWS, SHARD_SIZE = 800, 4
NUM_KILLS = 20


@contextlib.contextmanager
def start_writer(store: Path, format: str) -> Iterator[tuple[subprocess.Popen[str], IO[str]]]:
    command = [sys.executable, str(SCRIPT), str(store), format, str(SHARD_SIZE), str(NUM_ROWS), "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT) as writer:
        assert writer.stdout is not None
        yield writer, writer.stdout


@pytest.mark.slow
def test_killed_writers_are_resumed(format, tmp_path, snapshot):
    """kill -9 at twenty random points, each after a few shards and then within the next ones; then to the end."""
    header = formula.header(format, SHARD_SIZE, num_rows=NUM_ROWS, fingerprint=f"{0:064x}")
    undisturbed = snapshot(formula.write(str(tmp_path / "undisturbed"), header))
    records = {name: data for name, data in undisturbed.items() if name.startswith("_records")}
    url = storage.pairs_url(tmp_path / "killed", header.fingerprint, format)
    rng = random.Random(11)  # noqa: S311
    finished: set[int] = set()
    num_kills = num_made = 0
    while num_kills < NUM_KILLS:
        with start_writer(tmp_path / "killed", format) as (writer, said):
            lines = [said.readline() for _ in range(rng.randint(1, 4))]
            time.sleep(rng.uniform(0, 0.01))
            writer.kill()
            lines += said.readlines()
        assert writer.returncode == -signal.SIGKILL
        num_kills += 1
        made = {int(line.split()[1]) for line in lines if line.startswith("shard") and line.endswith("\n")}
        num_made += len(made)
        with pytest.raises(StoreError, match="partial"):
            storage.open_pairs(url)
        missing = {shard.index for shard in storage.missing_shards(url, header)}
        assert finished.isdisjoint(made)  # what was finished was not made again
        assert finished.isdisjoint(missing)
        assert made.isdisjoint(missing)
        finished = set(range(header.num_shards)) - missing
        files = snapshot(url)
        assert {name: files[name] for name in files if name in records}.items() <= records.items()
    # A writer that is killed has at most said nothing of the last shard that it finished.
    assert len(finished) - num_made <= num_kills
    assert len(finished) >= NUM_KILLS
    assert formula.write(str(tmp_path / "killed"), header) == url
    assert snapshot(url) == undisturbed
    assert storage.verify_pairs(url, progress=False).ok


def test_writers_killed_while_they_commit(format, tmp_path, snapshot):
    """With every shard there: the manifest is whole or absent, and nothing is made again."""
    header = formula.header(format, SHARD_SIZE, num_rows=NUM_ROWS, fingerprint=f"{0:064x}")
    undisturbed = snapshot(formula.write(str(tmp_path / "store"), header))
    url = storage.pairs_url(tmp_path / "store", header.fingerprint, format)
    rng = random.Random(12)  # noqa: S311
    for _ in range(4):
        (Path(url) / "_manifest.json").unlink(missing_ok=True)
        with start_writer(tmp_path / "store", format) as (writer, said):
            assert said.readline() == "commit\n"
            time.sleep(rng.uniform(0, 0.1))
            writer.kill()
            assert not said.read()
        files = snapshot(url)
        assert files.items() <= undisturbed.items()
        assert undisturbed.keys() - files.keys() <= {"_manifest.json"}
    formula.write(str(tmp_path / "store"), header)
    assert snapshot(url) == undisturbed


class PowerCutError(BaseException):
    """Stops the writer where it is raised; no handler of ours may swallow it."""


def test_a_stop_at_every_single_step_of_a_write(format, tmp_path, monkeypatch, snapshot):
    """A run stops before its first, second, ... change of the disk; what is there is whole, a rerun completes it."""
    header = formula.header(format, 40)
    undisturbed = snapshot(formula.write(str(tmp_path / "undisturbed"), header))
    steps_left = 0

    def dying(real):
        def call(*arguments, **options):
            nonlocal steps_left
            steps_left -= 1
            if steps_left < 0:
                raise PowerCutError
            return real(*arguments, **options)

        return call

    for name in ("replace", "link", "fsync"):
        monkeypatch.setattr(os, name, dying(getattr(os, name)))
    for stop in range(1000):
        store = str(tmp_path / f"stopped-{stop}")
        url = storage.pairs_url(store, header.fingerprint, format)
        steps_left = stop
        try:
            formula.write(store, header)
            break  # it got through: all steps have been tried
        except PowerCutError:
            steps_left = 1000
        files = snapshot(url)
        assert files.items() <= undisturbed.items()
        assert not list(Path(url).rglob(".*"))  # an exception, unlike a kill, leaves no temporary file
        if "_manifest.json" not in files:
            with pytest.raises(StoreError, match=r"no pairs|partial|nobody committed"):
                storage.open_pairs(url)
        formula.write(store, header)
        assert snapshot(url) == undisturbed
    assert stop > 15


@pytest.mark.parametrize("damage", ["unrecorded", "short", "gone", "record cut", "record of another plan"])
def test_resume_trusts_no_unrecorded_bytes(format, tmp_path, snapshot, damage):
    header = formula.header(format, 7)
    undisturbed = snapshot(formula.write(str(tmp_path / "undisturbed"), header))
    url = storage.pairs_url(tmp_path / "store", header.fingerprint, format)
    storage.begin_pairs(url, header)
    formula.write_missing(url, header)
    shard = Path(url) / ("source/c.2.0" if format == "zarr" else "part-00002.parquet")
    record = Path(url) / "_records" / "00002.json"
    if damage == "unrecorded":
        shard.write_bytes(b"half a sh")
        record.unlink()
    elif damage == "short":
        shard.write_bytes(shard.read_bytes()[:-1])
    elif damage == "gone":
        shard.unlink()
    elif damage == "record cut":
        record.write_bytes(record.read_bytes()[:100])
    else:
        record.write_bytes((Path(url) / "_records" / "00003.json").read_bytes())
    assert [shard.index for shard in storage.missing_shards(url, header)] == [2]
    formula.write(str(tmp_path / "store"), header)
    assert snapshot(url) == undisturbed


def test_commit_finds_a_flipped_bit_and_a_rerun_repairs_it(format, tmp_path, snapshot):
    """A size does not show it, so resume cannot; the manifest must still never state it."""
    header = formula.header(format, 7)
    undisturbed = snapshot(formula.write(str(tmp_path / "undisturbed"), header))
    url = storage.pairs_url(tmp_path / "store", header.fingerprint, format)
    storage.begin_pairs(url, header)
    formula.write_missing(url, header)
    shard = Path(url) / ("target/c.4.0" if format == "zarr" else "part-00004.parquet")
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    assert storage.missing_shards(url, header) == []
    with pytest.raises(ShardCorruptError, match=rf"shard 4 is damaged: .*{shard.name}.*pairflow pair"):
        storage.commit_pairs(url, header, {}, progress=False)
    assert storage.find_manifest(url) is None
    assert [shard.index for shard in storage.missing_shards(url, header)] == [4]
    formula.write(str(tmp_path / "store"), header)
    assert snapshot(url) == undisturbed
