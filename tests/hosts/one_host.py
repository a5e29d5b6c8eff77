"""The training of `test_two_hosts.py` on one machine: two processes of torch, no Ray, no store.

`python one_host.py FOLDER RANK` is one of them; the pairs are coupled anew.
"""

import os
import subprocess
import sys
from pathlib import Path

from pairflow.spec import DatasetSpec

ROWS, NUM_STEPS = 150, 600
DATASET = DatasetSpec(name="digits", max_rows=ROWS)
SETTINGS = {
    "training.num_steps": NUM_STEPS,
    "training.batch_size": 16,
    "model.hidden_size": 16,
    "evaluation.steps": [1, 2],
    "evaluation.num_samples": 8,
    "evaluation.num_trials": 2,
}


def started(folder: Path) -> "list[subprocess.Popen[bytes]]":
    """Both processes; their checkpoints go to `folder`."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    return [subprocess.Popen([sys.executable, __file__, str(folder), str(rank)], env=environment) for rank in (0, 1)]


def weights(processes: "list[subprocess.Popen[bytes]]", folder: Path) -> bytes:
    """The last checkpoint's tensors, when both are done."""
    assert [each.wait(300) for each in processes] == [0, 0]
    return (folder / "checkpoints" / f"step-{NUM_STEPS:08d}" / "tensors.safetensors").read_bytes()


def _train(folder: Path, rank: int) -> None:
    import torch
    from torch import distributed

    from flows.parameters import TrainParameters
    from flows.recipes.changes import resolve, with_assignments
    from flows.recipes.methods import METHODS
    from pairflow.coupling import couple
    from pairflow.datasets import load
    from pairflow.replicas import Replica
    from pairflow.training import fit

    torch.set_num_threads(1)
    preset = resolve(with_assignments(TrainParameters(dataset=DATASET, method="pairflow"), SETTINGS))
    train = load(DATASET, progress=False).part("train")
    source = couple(train.tokens, vocab_size=train.vocab_size, spec=preset.coupling)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    fit(
        preset.model,
        METHODS["pairflow"].training(preset),
        train.tokens,
        source,
        vocab_size=train.vocab_size,
        image_shape=train.image_shape,
        checkpoint_dir=folder / "checkpoints",
        replica=Replica.current(),
        device="cpu",
        progress=False,
    )
    distributed.destroy_process_group()


if __name__ == "__main__":
    _train(Path(sys.argv[1]), int(sys.argv[2]))
