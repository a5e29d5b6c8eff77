"""Two workers of Ray Train train as one, whatever stops them on the way, and nobody else can reach them."""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from mlflow import MlflowClient
from safetensors.torch import load_file

from flows.cluster.local import LocalCluster
from flows.home.settings import Settings
from flows.jobs import replicas
from flows.parameters import TrainParameters
from flows.recipes.changes import resolve, with_assignments
from flows.recipes.methods import METHODS
from pairflow import checkpoint
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


def _kill_a_worker(cluster: LocalCluster) -> None:
    """Kills one of the training processes; before, looks where they listen."""
    workers = [each for each, line in command_lines(cluster) if "RayTrainWorker" in line]
    assert len(workers) == 2
    for each in workers:
        each.suspend()  # looking takes its time, and the training would end meanwhile
    listening = [each for worker in workers for each in worker.net_connections("inet") if each.status == "LISTEN"]
    assert {each.laddr.ip.removeprefix("::ffff:") for each in listening} == {"127.0.0.1"}
    workers[1].kill()
    workers[0].resume()


def _begun(home: Path, environment: dict[str, str]) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "flows.command.app", *_COMMAND]
    variables = environment | {"PAIRFLOW_HOME": str(home), "PAIRFLOW_TRAIN_WORKERS": "2"}
    return subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _ended(running: "subprocess.Popen[str]") -> tuple[dict[str, Any], str]:
    stdout, stderr = running.communicate(timeout=240)
    assert running.returncode == 0, stderr
    result: dict[str, Any] = json.loads(stdout.rstrip("\n").rpartition("\n")[2])
    return result, stderr


def _has_a_checkpoint(home: Path, running: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + 150
    while not list((home / "runs").glob("*/checkpoints/step-*/state.json")):
        assert running.poll() is None, running.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _alone(folder: Path) -> dict[int, float]:
    """Step -> loss of the same training in this process."""
    chosen = TrainParameters(dataset=DatasetSpec(name="digits", max_rows=150), method="udlm")
    preset = resolve(with_assignments(chosen, _SETTINGS))
    train = load(chosen.dataset, progress=False).part("train")
    losses: dict[int, float] = {}
    fit(
        preset.model,
        METHODS["udlm"].training(preset),
        train.tokens,
        vocab_size=train.vocab_size,
        image_shape=train.image_shape,
        checkpoint_dir=folder,
        log_every=1,
        on_step=lambda metrics: losses.update({metrics.step: metrics.loss}),
        progress=False,
    )
    return losses


def test_two_workers_train_as_one_although_one_is_killed_or_all_are_interrupted(
    served_environment: dict[str, str], ray_cluster: LocalCluster, tmp_path: Path
) -> None:
    home = tmp_path / "killed"
    running = _begun(home, served_environment)
    _has_a_checkpoint(home, running)
    _kill_a_worker(ray_cluster)
    result, stderr = _ended(running)
    assert stderr.count("[FailurePolicy] RETRY") == 1, stderr  # Ray folds lines that are said twice within 5 s
    assert result["num_steps"] == _NUM_STEPS
    losses, expected = _losses(home, result), _alone(tmp_path / "alone")
    assert sorted(losses) == sorted(expected) == list(range(1, _NUM_STEPS + 1))
    differences = [abs(loss - expected[step]) for step, logged in losses.items() for loss in logged]
    assert max(differences) < 1e-4

    # Another one that Ctrl-C cuts off, at a step that is left to chance, and that the same command ends.
    home = tmp_path / "cut"
    running = _begun(home, served_environment)
    _has_a_checkpoint(home, running)
    time.sleep(random.uniform(0, 1))  # noqa: S311 - seeded by pytest-randomly
    running.send_signal(signal.SIGINT)
    _, stderr = running.communicate(timeout=60)
    assert running.returncode in (128 + signal.SIGINT, 0), stderr  # 0 where chance let it end before
    again, _ = _ended(_begun(home, served_environment))
    killed, cut = (load_file(Path(each["checkpoint"]) / "tensors.safetensors") for each in (result, again))
    assert killed.keys() == cut.keys()
    assert [name for name in killed if not torch.equal(killed[name], cut[name])] == []


def test_more_workers_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 2.0, "GPU": 1.0})
    replicas.check_room({"CPU": 1.0, "GPU": 0.5}, 2)
    with pytest.raises(SpecError, match="PAIRFLOW_TRAIN_WORKERS=3 wants 3 CPUs, but the cluster has 2"):
        replicas.check_room({"CPU": 1.0}, 3)
    with pytest.raises(SpecError, match="PAIRFLOW_TRAIN_WORKERS=2 wants 2 GPUs, but the cluster has 1"):
        replicas.check_room({"CPU": 1.0, "GPU": 1.0}, 2)


def test_a_worker_that_sees_another_disk_is_told_what_to_do(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    checkpoints = replicas.checkpoints_of("0", settings)
    with pytest.raises(RuntimeError, match="PAIRFLOW_STORE"):
        replicas.check_same_folder(checkpoints, -1)
    checkpoints.here.mkdir(parents=True)
    replicas.check_same_folder(checkpoints, -1)
    with pytest.raises(RuntimeError, match="one PAIRFLOW_HOME"):
        replicas.check_same_folder(checkpoints, 5)
    checkpoint.save(checkpoints.here, {}, {"step": 5})
    replicas.check_same_folder(checkpoints, 5)
