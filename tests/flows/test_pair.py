"""`pairflow pair`, from the command line to the store, on a real Ray cluster."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ray.job_submission import JobSubmissionClient

import storage
from flows.cluster.local import LocalCluster
from pairflow.coupling import couple
from pairflow.datasets import load
from pairflow.spec import CouplingSpec, DatasetSpec

from .conftest import Cli, Finished

_SPEC = CouplingSpec(num_steps=6, seed=3)


def _arguments(tokens_file: Path, store: Path, **options: object) -> list[object]:
    options = {"dataset": "tokens", "path": tokens_file, "vocab-size": 5, "store": store, **options}
    chosen = {"num-steps": _SPEC.num_steps, "seed": _SPEC.seed, **options}
    return ["pair", *[text for name, value in chosen.items() for text in (f"--{name}", value)]]


def _json(done: Finished) -> dict[str, Any]:
    assert done.code == 0, done.stderr
    document: dict[str, Any] = json.loads(done.last_line)
    return document


@pytest.fixture(scope="module")
def couplings(cli: Cli, tokens_file: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The same pairs, made in processes of their own with everything operational different."""
    cuts: list[dict[str, object]] = [
        {"shard-size": 1000, "format": "zarr", "workers": 1},
        {"shard-size": 7, "format": "parquet", "workers": 2},
        {"shard-size": 1, "format": "zarr", "workers": 2},
    ]
    stores = [tmp_path_factory.mktemp("store") for _ in cuts]
    return [
        _json(cli(*_arguments(tokens_file, store, **cut), "--json")) for store, cut in zip(stores, cuts, strict=True)
    ]


def test_json_line_has_what_scripts_want(couplings: list[dict[str, Any]]) -> None:
    for each in couplings:
        assert each["rows"] == 36
        assert each["skipped"] is False
        assert each["seconds"] > 0
        assert Path(each["url"]).name == f"{each['fingerprint']}.{each['format']}"


def test_content_depends_on_nothing_operational(couplings: list[dict[str, Any]]) -> None:
    assert [each["num_shards"] for each in couplings] == [1, 6, 36]
    assert len({each["content_sha256"] for each in couplings}) == 1
    assert len({each["fingerprint"] for each in couplings}) == 1
    first, *others = (storage.open_pairs(each["url"]) for each in couplings)
    for other in others:
        np.testing.assert_array_equal(np.asarray(other.source), np.asarray(first.source))
        np.testing.assert_array_equal(np.asarray(other.target), np.asarray(first.target))


def test_pairs_are_those_of_couple(couplings: list[dict[str, Any]], tokens_file: Path) -> None:
    data = load(DatasetSpec(name="tokens", path=str(tokens_file), vocab_size=5), progress=False)
    train = data.part("train").tokens
    pairs = storage.open_pairs(couplings[1]["url"])
    np.testing.assert_array_equal(np.asarray(pairs.target), train)
    np.testing.assert_array_equal(np.asarray(pairs.source), couple(train, vocab_size=5, spec=_SPEC, num_threads=1))
    differing = float((np.asarray(pairs.source) != train).sum(axis=1).mean())
    assert couplings[1]["mean_hamming"] == pytest.approx(differing)
    assert couplings[1]["keep_rate"] == pytest.approx(1 - differing / train.shape[1])
    same = np.asarray(pairs.source) == train
    summary: dict[str, Any] = dict(pairs.manifest.summary)
    assert summary["keep_rate_by_position"] == pytest.approx(same.mean(axis=0).tolist(), abs=1e-6)
    distances, numbers = np.unique((~same).sum(axis=1), return_counts=True)
    histogram = summary["hamming_histogram"]
    assert histogram["first"] == distances[0]
    assert [count for count in histogram["counts"] if count] == numbers.tolist()
    assert 0 < summary["scan_fraction"] < 1


def test_several_sources_a_target(
    cli: Cli, tokens_file: Path, tmp_path: Path, couplings: list[dict[str, Any]], home: Path
) -> None:
    made = _json(cli(*_arguments(tokens_file, tmp_path, **{"sources-per-target": 3, "shard-size": 25}), "--json"))
    assert made["rows"] == 108
    three, one = storage.open_pairs(made["url"]), storage.open_pairs(couplings[0]["url"])
    np.testing.assert_array_equal(np.asarray(three.source)[:36], np.asarray(one.source))
    np.testing.assert_array_equal(np.asarray(three.sample_id), np.tile(np.arange(36), 3))
    np.testing.assert_array_equal(np.asarray(three.target), np.tile(np.asarray(one.target), (3, 1)))
    assert not np.array_equal(np.asarray(three.source)[36:72], np.asarray(one.source))
    picture = home / "reports" / made["fingerprint"] / "coupling.png"
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_rerun_finds_the_pairs_and_repairs_what_is_damaged(
    cli: Cli, tokens_file: Path, couplings: list[dict[str, Any]]
) -> None:
    made = couplings[1]
    command = _arguments(tokens_file, Path(made["url"]).parents[1], **{"shard-size": 7, "format": "parquet"})
    again = cli(*command)
    assert again.code == 0, again.stderr
    assert again.last_line == made["url"]
    assert "nothing to do" in again.stderr

    damaged = next(Path(made["url"]).rglob("*00002*.parquet"))
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    found = cli("verify", made["url"])
    assert found.code == 1
    assert "shard 2" in found.stderr
    assert "Traceback" not in found.stderr
    repaired = _json(cli(*command, "--json"))
    assert not repaired["skipped"]
    assert repaired["content_sha256"] == made["content_sha256"]
    verified = cli("verify", made["url"], "--json")
    assert verified.code == 0
    assert json.loads(verified.last_line) == {"url": made["url"], "num_shards": 6, "ok": True, "bad": []}


def test_inspect_shows_pairs(cli: Cli, couplings: list[dict[str, Any]]) -> None:
    shown = _json(cli("inspect", couplings[0]["url"], "--rows", 2, "--json"))
    pairs = storage.open_pairs(couplings[0]["url"])
    assert [pair["target"] for pair in shown["pairs"]] == np.asarray(pairs.target)[:2].tolist()
    assert shown["fingerprint"] == couplings[0]["fingerprint"]
    assert "source (t = 0)" in cli("inspect", couplings[0]["url"]).stdout


def test_ctrl_c_stops_the_job(served_environment: dict[str, str], ray_cluster: LocalCluster, tmp_path: Path) -> None:
    # Digits with as many steps as there may be: minutes of work.
    command = ["pair", "--dataset", "digits", "--num-steps", "65535", "--shard-size", "100", "--store", str(tmp_path)]
    client = JobSubmissionClient(ray_cluster.address, headers=ray_cluster.headers)
    before = {job.submission_id for job in client.list_jobs()}
    running = subprocess.Popen(
        [sys.executable, "-m", "flows.command.app", *command],
        env=served_environment,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    assert running.stderr is not None
    said: list[str] = []
    for line in running.stderr:
        said.append(line)
        if "shards to make" in line:
            break
    started = time.monotonic()
    os.kill(running.pid, signal.SIGINT)
    rest = running.stderr.read()
    running.stderr.close()
    assert running.wait(60) == 130, "".join(said) + rest
    assert time.monotonic() - started < 30
    assert "interrupted" in rest
    assert "Traceback" not in rest
    stopped = [job for job in client.list_jobs() if job.submission_id not in before]
    assert [job.status.value for job in stopped] == ["STOPPED"]
    assert not list(tmp_path.glob("pairs/*/_manifest.json"))
