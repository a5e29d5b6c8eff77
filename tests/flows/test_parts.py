"""A support in parts, each in an actor of a real Ray cluster: the same pairs, also when actors are killed."""

import contextlib
import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

import storage
from flows.cluster.local import LocalCluster
from flows.jobs import parts
from pairflow.coupling import couple, couple_counted
from pairflow.datasets import load
from pairflow.errors import SpecError
from pairflow.spec import CouplingSpec, DatasetSpec, fingerprint

from .conftest import Cli
from .ray_processes import command_lines

# Three parts and two CPUs.
_PARTS = {"PAIRFLOW_SUPPORT_PARTS": "3", "PAIRFLOW_CPUS_PER_TASK": "0.5"}


def test_pairs_and_fingerprint_are_those_without_parts(cli: Cli, tokens_file: Path, tmp_path: Path) -> None:
    arguments = ["--dataset", "tokens", "--path", tokens_file, "--vocab-size", 5, "--num-steps", 6, "--shard-size", 30]
    done = cli("pair", *arguments, "--sources-per-target", 2, "--store", tmp_path, "--json", **_PARTS)
    assert done.code == 0, done.stderr
    made: dict[str, Any] = json.loads(done.last_line)
    train = load(DatasetSpec(name="tokens", path=str(tokens_file), vocab_size=5), progress=False).part("train")
    spec = CouplingSpec(num_steps=6, sources_per_target=2)
    assert made["fingerprint"] == fingerprint(spec, dataset=train.digest, engine="cpu/1")
    ids, replicas = np.tile(np.arange(36), 2), np.repeat([0, 1], 36)
    expected = couple_counted(
        np.tile(train.tokens, (2, 1)),
        train.tokens,
        vocab_size=5,
        spec=spec,
        sample_ids=ids,
        replicas=replicas,
        engine="cpu",
    )
    pairs = storage.open_pairs(made["url"])
    np.testing.assert_array_equal(np.asarray(pairs.source), expected.source)
    assert pairs.manifest.summary["scan_fraction"] == expected.num_scans.sum() / (72 * 6)


def test_more_parts_than_the_cluster_has_room_for(cli: Cli, tokens_file: Path, tmp_path: Path) -> None:
    arguments = ["--dataset", "tokens", "--path", tokens_file, "--vocab-size", 5, "--store", tmp_path]
    done = cli("pair", *arguments, PAIRFLOW_SUPPORT_PARTS="3")
    assert done.code == 1
    assert "got 3 parts of 1 CPU each, expected no more than the cluster's 2 CPUs" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("engine", "temperature"), [("cpu", 0.5), ("dense", 1.0)])
def test_sums_of_floats_are_not_split(engine: str, temperature: float) -> None:
    spec = CouplingSpec(temperature=temperature)
    with pytest.raises(
        SpecError, match=f"engine '{engine}' and temperature {temperature}, expected engine cpu or cuda"
    ):
        parts.start(np.eye(3, dtype=np.uint8), spec, engine=engine, num_parts=2, cpus_per_part=1, gpus_per_part=0)


def test_parts_that_are_killed(served_environment: dict[str, str], ray_cluster: LocalCluster, tmp_path: Path) -> None:
    """Again and again: the job fails. Twice: the rerun goes on, and makes only what is missing."""
    killed, failed = _couple_while_killing(served_environment, ray_cluster, tmp_path, most=1000)
    assert killed >= 4
    assert failed.returncode == 1, failed.stderr
    assert "PAIRFLOW_SUPPORT_PARTS, cannot be kept" in failed.stderr
    assert "a rerun makes only what is missing" in failed.stderr
    assert "Traceback" not in failed.stderr
    survived = _records(tmp_path)

    killed, done = _couple_while_killing(served_environment, ray_cluster, tmp_path, most=2)
    assert done.returncode == 0, done.stderr
    assert killed == 2
    assert {path: _records(tmp_path)[path] for path in survived} == survived
    made: dict[str, Any] = json.loads(done.stdout.rstrip("\n").rpartition("\n")[2])
    assert len(survived) < made["num_shards"]
    train = load(DatasetSpec(name="digits", max_rows=900), progress=False).part("train").tokens
    expected = couple(train, vocab_size=2, spec=CouplingSpec(num_steps=60, seed=5), engine="cpu")
    np.testing.assert_array_equal(np.asarray(storage.open_pairs(made["url"]).source), expected)


def _records(store: Path) -> dict[Path, int]:
    """Written records, with when they were written."""
    return {path: path.stat().st_mtime_ns for path in store.glob("pairs/*/_records/[0-9]*.json")}


def _couple_while_killing(
    environment: dict[str, str], cluster: LocalCluster, store: Path, *, most: int
) -> tuple[int, "subprocess.CompletedProcess[str]"]:
    """Couples, and from the first new shard on kills one actor after the other, up to `most` processes.

    Returns:
        How many were killed, and the command when it had ended.
    """
    ended, killed, before = threading.Event(), set[int](), len(_records(store))

    def kill() -> None:
        while not ended.wait(0.1) and len(killed) < most:
            if len(_records(store)) == before:
                continue
            for process, line in command_lines(cluster):
                if process.pid not in killed and line.startswith("ray::_Part"):
                    with contextlib.suppress(psutil.NoSuchProcess):  # it ended by itself
                        process.kill()
                        killed.add(process.pid)
                        break

    killer = threading.Thread(target=kill)
    killer.start()
    options = ["--max-rows", "900", "--num-steps", "60", "--seed", "5", "--shard-size", "50", "--store", str(store)]
    done = subprocess.run(
        [sys.executable, "-m", "flows.command.app", "pair", "--dataset", "digits", *options, "--json"],
        env=environment | _PARTS,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    ended.set()
    killer.join()
    return len(killed), done
