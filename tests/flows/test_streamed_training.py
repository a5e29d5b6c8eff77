"""A training job whose pairs are read from the store as it needs them, killed on the way: the same checkpoint."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import storage
from flows.cluster.protocol import JobContext
from flows.jobs import train
from flows.parameters import TrainParameters
from flows.requests import TrainRequest
from pairflow import training_data
from pairflow.checkpoint import read_state
from pairflow.datasets import load
from pairflow.errors import SpecError
from pairflow.spec import DatasetSpec

_JOB = Path(__file__).with_name("streamed_job.py")
_SOURCES = 16  # a row: pairs of 2.9 MB, of which a bound of 1 MiB holds windows of some fifty batches


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> str:
    """URL of pairs of digits' training part; their sources are any tokens."""
    part = load(DatasetSpec(name="digits"), progress=False).part("train")
    target = np.tile(part.tokens, (_SOURCES, 1)).astype(np.uint8)
    header = storage.PairsHeader(
        fingerprint="1" * 64,
        format="zarr",
        num_rows=len(target),
        length=part.length,
        vocab_size=part.vocab_size,
        shard_size=1000,
        spec={"kind": "independent"},
        dataset={"name": "digits", "digest": part.digest},
        engine="cpu/1",
        sources_per_target=_SOURCES,
    )
    url = storage.pairs_url(tmp_path_factory.mktemp("store"), header.fingerprint, header.format)
    storage.begin_pairs(url, header)
    source = np.random.default_rng(0).integers(part.vocab_size, size=target.shape, dtype=np.uint8)
    ids = np.arange(len(target)) % len(part.tokens)
    for shard in header.plan():
        rows = slice(shard.start, shard.stop)
        storage.write_shard(url, header, shard.index, source[rows], target[rows], ids[rows])
    storage.commit_pairs(url, header, {}, progress=False)
    return url


def _begun(pairs: str, home: Path, data: str) -> "subprocess.Popen[str]":
    settings = {"HOME": str(home), "TRAINING_DATA": data, "TRAINING_DATA_MB": "1", "THREADS_PER_JOB": "1"}
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PAIRFLOW_", "MLFLOW_"))}
    variables = inherited | {f"PAIRFLOW_{name}": value for name, value in settings.items()}
    return subprocess.Popen(
        [sys.executable, str(_JOB), pairs], env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def _ended(running: "subprocess.Popen[str]") -> dict[str, Any]:
    stdout, stderr = running.communicate(timeout=300)
    assert running.returncode == 0, stderr
    return dict(json.loads(stdout.splitlines()[-1]))


def _contents(result: dict[str, Any]) -> dict[str, Any]:
    """Everything that the last checkpoint says, but the seconds."""
    folder = Path(result["checkpoint"])
    return {**load_file(folder / "tensors.safetensors"), **read_state(folder), "seconds": None}


@pytest.mark.kill
@pytest.mark.slow
def test_a_streamed_job_that_was_killed_ends_with_the_checkpoint_of_a_resident_one(pairs: str, tmp_path: Path) -> None:
    home = tmp_path / "streamed"
    running = _begun(pairs, home, "streamed")
    deadline = time.monotonic() + 200
    while not list((home / "runs").glob("*/checkpoints/step-*/state.json")):
        assert running.poll() is None, running.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    running.kill()
    running.communicate()
    assert not list((home / "runs").glob("*/result.json"))
    got, expected = (
        _contents(_ended(_begun(pairs, folder, data)))
        for folder, data in ((home, "streamed"), (tmp_path / "resident", "resident"))
    )
    assert got.keys() == expected.keys()
    alike = [torch.equal(v, got[k]) if torch.is_tensor(v) else v == got[k] for k, v in expected.items()]
    assert all(alike), [name for name, same in zip(expected, alike, strict=True) if not same]


def test_what_must_be_resident_and_is_larger_than_memory_is_said_before_the_first_step(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in {"PAIRFLOW_HOME": str(tmp_path), "PAIRFLOW_TRAINING_DATA": "resident"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("PAIRFLOW_STORE", raising=False)
    monkeypatch.setattr(training_data, "free_memory", lambda: 1000)
    request = TrainRequest.of(TrainParameters(dataset=DatasetSpec(name="digits", max_rows=40), method="udlm"))
    with pytest.raises(SpecError, match=r"placement: got 'resident' .*PAIRFLOW_TRAINING_DATA.* but .* are free; use"):
        train.run(request, JobContext(submission_id=None, flow_run_id="1"))
    assert not list(tmp_path.rglob("step-*"))
