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

WORKER = """
import json, sys
import numpy as np
import torch
from torch import distributed

from pairflow.distillation.dcd import distill
from pairflow.replicas import Replica
from pairflow.spec import DistillationSpec, ModelSpec, TrainingSpec
from pairflow.training import fit

folder, rank, world_size, stop = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
torch.set_num_threads(1)
if world_size > 1:
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet-{stop}", rank=rank, world_size=world_size)
replica = Replica.current()
assert (replica.rank, replica.world_size) == (rank, world_size)
target, source = (np.random.default_rng(seed).integers(5, size=(20, 6), dtype=np.uint8) for seed in (0, 1))
model = ModelSpec(hidden_size=16, num_layers=1, num_heads=2, cond_size=8)
sizes = {"num_steps": 12, "batch_size": 8, "accumulate": 2, "learning_rate": 1e-2}
curve = []

def on_step(metrics):
    if metrics.step == stop:
        raise KeyboardInterrupt
    curve.append(metrics.loss)

options = {"vocab_size": 5, "checkpoint_every": 5, "log_every": 1, "device": "cpu", "progress": False}
options |= {"on_step": on_step, "replica": replica}
try:
    training = TrainingSpec(warmup_steps=3, **sizes)
    fit(model, training, target, source, checkpoint_dir=folder + "/fit", **options)
    spec = DistillationSpec(update_teacher_every=5, **sizes)
    distill(spec, folder + "/fit", target, checkpoint_dir=folder + "/distill", **options)
except KeyboardInterrupt:
    pass
print(json.dumps(curve))
if world_size > 1:
    distributed.destroy_process_group()
"""


def together(folder: Path, world_size: int, stop: int = 0) -> list[str]:
    """What each of the processes printed."""
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-W", "error", "-c", WORKER, str(folder)]
    workers = [
        subprocess.Popen([*command, str(rank), str(world_size), str(stop)], stdout=subprocess.PIPE, text=True)
        for rank in range(world_size)
    ]
    printed = [worker.communicate(timeout=300)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0] * world_size
    return printed


def test_two_processes_train_and_distil_as_one(tmp_path):
    """The same losses and weights up to rounding, also when both were interrupted on the way."""
    (alone,) = together(tmp_path / "one", 1)
    both = together(tmp_path / "two", 2)
    assert both[0] == both[1]
    expected = json.loads(alone)
    assert len(expected) == 24
    np.testing.assert_allclose(json.loads(both[0]), expected, atol=1e-4)

    together(tmp_path / "cut", 2, stop=8)
    resumed = together(tmp_path / "cut", 2)
    np.testing.assert_allclose(json.loads(resumed[0]), expected[5:], atol=1e-4)

    for part in ("fit", "distill"):
        weights, shared, again = (
            load_file(tmp_path / name / part / "step-00000012" / "tensors.safetensors")
            for name in ("one", "two", "cut")
        )
        for name in weights:
            if name.startswith("ema."):
                torch.testing.assert_close(shared[name], weights[name], rtol=1e-2, atol=1e-3)
                assert torch.equal(shared[name], again[name])


def test_alone_without_a_process_group_and_uneven_batches_are_named():
    assert Replica.current() == Replica(0, 1)
    rows = torch.arange(8)
    assert [Replica(rank, 4).share(rows).tolist() for rank in range(4)] == [[0, 1], [2, 3], [4, 5], [6, 7]]
    with pytest.raises(SpecError, match="batch_size: got 8, expected a multiple of 6: 3 workers × accumulate 2"):
        Replica(0, 3).check(8, 2)
