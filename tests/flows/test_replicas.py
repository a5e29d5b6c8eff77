"""Two workers of Ray Train train as one, also when one of them is killed on the way, and nobody else can reach them."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from flows.cluster.local import LocalCluster
from flows.jobs import replicas
from flows.parameters import TrainParameters
from flows.recipes.changes import resolve, with_assignments
from flows.recipes.methods import METHODS
from pairflow.datasets import load
from pairflow.errors import SpecError
from pairflow.spec import DatasetSpec
from pairflow.training import fit

from .ray_processes import command_lines

_NUM_STEPS = 150
_SETTINGS = {"training.num_steps": _NUM_STEPS, "training.batch_size": 16, "model.hidden_size": 16}
_COMMAND = [
    *("train", "--dataset", "digits", "--max-rows", "150", "--method", "udlm", "--json"),
    *(word for name, value in _SETTINGS.items() for word in ("--set", f"{name}={value}")),
]


def _losses(home: Path, result: dict[str, Any]) -> dict[int, list[float]]:
    """Step -> what was logged of its loss: more than once where a step was taken again."""
    client = MlflowClient(f"sqlite:///{home}/mlflow/mlflow.db")
    losses: dict[int, list[float]] = {}
    for each in client.get_metric_history(result["mlflow_run_id"], "train_loss"):
        losses.setdefault(each.step, []).append(each.value)
    return losses


def _kill_a_worker(cluster: LocalCluster, checkpoints: Path, running: "subprocess.Popen[str]") -> None:
    """Kills one of the training processes as soon as there is a checkpoint; before, looks where they listen."""
    deadline = time.monotonic() + 150
    while not list(checkpoints.glob("*/checkpoints/step-*/state.json")):
        assert running.poll() is None, running.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    workers = [each for each, line in command_lines(cluster) if "RayTrainWorker" in line]
    assert len(workers) == 2
    for each in workers:
        each.suspend()  # looking takes its time, and the training would end meanwhile
    listening = [each for worker in workers for each in worker.net_connections("inet") if each.status == "LISTEN"]
    assert {each.laddr.ip.removeprefix("::ffff:") for each in listening} == {"127.0.0.1"}
    workers[1].kill()
    workers[0].resume()


def _alone(folder: Path) -> dict[int, float]:
    """Step -> loss of the same training in this process."""
    chosen = TrainParameters(dataset=DatasetSpec(name="digits", max_rows=150), method="udlm")
    preset = resolve(with_assignments(chosen, _SETTINGS))
    train = load(chosen.dataset, progress=False).part("train")
    losses: dict[int, float] = {}
    fit(
        preset.model,
        METHODS["udlm"].training(preset.training),
        train.tokens,
        vocab_size=train.vocab_size,
        image_shape=train.image_shape,
        checkpoint_dir=folder,
        log_every=1,
        on_step=lambda metrics: losses.update({metrics.step: metrics.loss}),
        progress=False,
    )
    return losses


def test_two_workers_train_as_one_although_one_is_killed(
    served_environment: dict[str, str], ray_cluster: LocalCluster, tmp_path: Path
) -> None:
    environment = served_environment | {"PAIRFLOW_HOME": str(tmp_path), "PAIRFLOW_TRAIN_WORKERS": "2"}
    command = [sys.executable, "-m", "flows.command.app", *_COMMAND]
    running = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    _kill_a_worker(ray_cluster, tmp_path / "runs", running)
    stdout, stderr = running.communicate(timeout=240)
    assert running.returncode == 0, stderr
    assert stderr.count("[FailurePolicy] RETRY") == 1, stderr  # Ray folds lines that are said twice within 5 s
    result = json.loads(stdout.rstrip("\n").rpartition("\n")[2])
    assert result["num_steps"] == _NUM_STEPS
    losses, expected = _losses(tmp_path, result), _alone(tmp_path / "alone")
    assert sorted(losses) == sorted(expected) == list(range(1, _NUM_STEPS + 1))
    differences = [abs(loss - expected[step]) for step, logged in losses.items() for loss in logged]
    assert max(differences) < 1e-4


def test_more_workers_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 2.0, "GPU": 1.0})
    replicas.check_room({"CPU": 1.0, "GPU": 0.5}, 2)
    with pytest.raises(SpecError, match="PAIRFLOW_TRAIN_WORKERS=3 wants 3 CPUs, but the cluster has 2"):
        replicas.check_room({"CPU": 1.0}, 3)
    with pytest.raises(SpecError, match="PAIRFLOW_TRAIN_WORKERS=2 wants 2 GPUs, but the cluster has 1"):
        replicas.check_room({"CPU": 1.0, "GPU": 1.0}, 2)
