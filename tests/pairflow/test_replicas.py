"""Two processes that train together: the loss curve and weights of one, one writer, resuming, uneven batches."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from pairflow.errors import SpecError
from pairflow.replicas import Replica

from .replica_worker import curve

WORKER = Path(__file__).parent / "replica_worker.py"


@pytest.mark.slow
def test_two_processes_train_and_distil_as_one(tmp_path):
    """The same losses and weights up to rounding, also when both were interrupted, and went on with streamed rows."""
    command = [sys.executable, "-W", "error", str(WORKER), str(tmp_path)]
    workers = [subprocess.Popen([*command, str(rank), "2"], stdout=subprocess.PIPE, text=True) for rank in range(2)]
    expected = curve(f"{tmp_path}/alone")
    printed = [worker.communicate(timeout=300)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0]
    assert len(expected) == 24
    for rank, text in enumerate(printed):
        seen = json.loads(text)
        assert seen["place"] == [rank, 2]
        np.testing.assert_allclose(seen["whole"], expected, atol=1e-4)
        assert seen["resumed"] == seen["whole"][5:]
    for part in ("fit", "distill"):
        weights, shared, resumed = (
            load_file(tmp_path / run / part / "step-00000012/tensors.safetensors") for run in ("alone", "whole", "cut")
        )
        for name in weights:
            if name.startswith("ema."):
                torch.testing.assert_close(shared[name], weights[name], rtol=1e-2, atol=1e-3)
                assert torch.equal(shared[name], resumed[name])


@pytest.mark.slow
def test_processes_that_do_not_see_each_others_folder(tmp_path):
    """The first writes, the other needs nothing of it; and where it cannot write, neither waits for the other."""
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "0").write_text("a file where its folder should be")
    command = [sys.executable, "-W", "error", str(WORKER), str(tmp_path)]
    workers = [
        subprocess.Popen([*command, str(rank), "2", "apart"], stdout=subprocess.PIPE, text=True) for rank in range(2)
    ]
    first, second = (json.loads(worker.communicate(timeout=300)[0]) for worker in workers)
    assert first[0] == str(tmp_path / "well" / "0" / "step-00000012")
    assert second[0] == str(tmp_path / "well" / "1")
    assert not (tmp_path / "well" / "1").exists()
    assert f"cannot write checkpoint {tmp_path / 'full' / '0'}" in first[1]
    assert "the first replica could not write its checkpoint" in second[1]


def test_alone_without_a_process_group_and_uneven_batches_are_named():
    assert Replica.current() == Replica(0, 1)
    rows = torch.arange(8)
    assert [Replica(rank, 4).share(rows).tolist() for rank in range(4)] == [[0, 1], [2, 3], [4, 5], [6, 7]]
    with pytest.raises(SpecError, match="batch_size: got 8, expected a multiple of 6: 3 workers × accumulate 2"):
        Replica(0, 3).check(8, 2)
