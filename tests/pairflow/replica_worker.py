"""A training and a distillation as one of several processes: `python replica_worker.py FOLDER RANK WORLD_SIZE`.

With `apart` behind it, trainings whose checkpoints each process looks for in a folder of its own.
"""

import json
import sys
from typing import Any

import numpy as np
import torch
from torch import distributed

from pairflow.distillation.dcd import distill
from pairflow.errors import CheckpointError, StoreError
from pairflow.replicas import Replica
from pairflow.spec import DistillationSpec, ModelSpec, TrainingSpec
from pairflow.training import fit
from pairflow.training_data import Placing

MODEL = ModelSpec(hidden_size=16, num_layers=1, num_heads=2, cond_size=8)
TARGET, SOURCE = (np.random.default_rng(seed).integers(5, size=(20, 6), dtype=np.uint8) for seed in (0, 1))
SIZES: dict[str, Any] = {"num_steps": 12, "batch_size": 8, "accumulate": 2, "learning_rate": 1e-2}


def curve(folder: str, *, stop: int | None = None, placing: Placing | None = None) -> list[float]:
    """The losses of both, up to a step of the training at which it is interrupted."""
    losses = []

    def on_step(metrics):
        if metrics.step == stop:
            raise KeyboardInterrupt
        losses.append(metrics.loss)

    options: dict[str, Any] = {
        "vocab_size": 5,
        "checkpoint_every": 5,
        "log_every": 1,
        "device": "cpu",
        "progress": False,
    }
    options |= {"on_step": on_step, "replica": Replica.current(), "placing": placing}
    try:
        fit(MODEL, TrainingSpec(warmup_steps=3, **SIZES), TARGET, SOURCE, checkpoint_dir=f"{folder}/fit", **options)
        spec = DistillationSpec(update_teacher_every=5, **SIZES)
        distill(spec, f"{folder}/fit", TARGET, checkpoint_dir=f"{folder}/distill", **options)
    except KeyboardInterrupt:
        pass
    return losses


def _refuse() -> str:
    raise StoreError("damaged")


def apart(folder: str, rank: str) -> str:
    """Trains with a folder of this process's own; where the training ended, or why it did not."""
    options: dict[str, Any] = {"vocab_size": 5, "checkpoint_every": 5, "device": "cpu", "progress": False}
    spec = TrainingSpec(warmup_steps=3, **SIZES)
    try:
        done = fit(MODEL, spec, TARGET, SOURCE, checkpoint_dir=f"{folder}/{rank}", replica=Replica.current(), **options)
    except CheckpointError as error:
        return str(error)
    return str(done.checkpoint)


if __name__ == "__main__":
    _, folder, rank, world_size, *how = sys.argv
    torch.set_num_threads(1)
    meeting = f"file://{folder}/meeting"
    distributed.init_process_group("gloo", init_method=meeting, rank=int(rank), world_size=int(world_size))
    if how == ["apart"]:
        print(json.dumps([apart(f"{folder}/well", rank), apart(f"{folder}/full", rank)]))
        distributed.destroy_process_group()
        sys.exit()
    whole, cut = curve(f"{folder}/whole"), curve(f"{folder}/cut", stop=8)
    surveyed = Replica.current().from_first(lambda: f"by {Replica.current().rank}")
    place, streamed = Replica.current(), Placing("streamed", memory_bytes=500)
    resumed = curve(f"{folder}/cut", placing=streamed)
    assert surveyed == "by 0"
    refused = ""
    try:
        place.from_first(_refuse)
    except StoreError as error:
        refused = str(error)
    assert refused == "damaged"
    print(json.dumps({"place": [place.rank, place.world_size], "whole": whole, "resumed": resumed}))
    assert cut == whole[:7]
    distributed.destroy_process_group()
