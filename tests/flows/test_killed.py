"""A pairing whose worker and then whose driver is killed with SIGKILL, on a real Ray cluster."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import storage
from flows.cluster.local import LocalCluster
from pairflow.coupling import couple
from pairflow.datasets import load
from pairflow.spec import CouplingSpec, DatasetSpec

from .ray_processes import command_lines

_SPEC = CouplingSpec(num_steps=1500, seed=5)  # some ten seconds of two cores
_ARGUMENTS = ["pair", "--dataset", "digits", "--num-steps", "1500", "--seed", "5", "--shard-size", "40", "--json"]


def _records(store: Path) -> dict[str, int]:
    """Written records by name, with when they were written."""
    return {path.name: path.stat().st_mtime_ns for path in store.glob("pairs/*/_records/[0-9]*.json")}


def _wait_for_records(store: Path, number: int, running: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + 120
    while len(_records(store)) < number:
        assert running.poll() is None, running.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _kill(cluster: LocalCluster, words: str) -> None:
    """Kills one Python process of this cluster (not the shell around it), known by the end of its command line."""
    for process, line in command_lines(cluster):
        if line.endswith(words) and "python" in process.exe():
            process.kill()
            return
    raise AssertionError(f"no process with {words} at the end of its command line")


def test_same_pairs_after_kills_and_nothing_finished_is_made_again(
    served_environment: dict[str, str], ray_cluster: LocalCluster, tmp_path: Path
) -> None:
    def start() -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "flows.command.app", *_ARGUMENTS, "--store", str(tmp_path)]
        return subprocess.Popen(
            command, env=served_environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    first = start()
    _wait_for_records(tmp_path, 3, first)
    _kill(ray_cluster, "ray::_couple_shard")  # Ray runs the shard again
    _wait_for_records(tmp_path, 12, first)
    _kill(ray_cluster, "-m flows.jobs.pair")
    _, stderr = first.communicate(timeout=120)
    assert first.returncode == 1, stderr
    assert "Traceback" not in stderr
    assert "left neither a result nor an error" in stderr
    survived = _records(tmp_path)
    assert not list(tmp_path.glob("pairs/*/_manifest.json"))

    second = start()
    stdout, stderr = second.communicate(timeout=240)
    assert second.returncode == 0, stderr
    result: dict[str, Any] = json.loads(stdout.rstrip("\n").rpartition("\n")[2])
    assert {name: _records(tmp_path)[name] for name in survived} == survived
    assert len(survived) < result["num_shards"]
    train = load(DatasetSpec(name="digits"), progress=False).part("train").tokens
    expected = couple(train, vocab_size=2, spec=_SPEC)
    np.testing.assert_array_equal(np.asarray(storage.open_pairs(result["url"]).source), expected)
