"""Two machines without a disk in common: Ray's head and a worker, all that they exchange in a store on S3.

They pair, train with a worker on each, and evaluate; the worker's machine is cut off in the middle of the training.
What comes of it is compared with what processes of this machine make of the same settings, without Ray and store.
"""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr

from flows.jobs.scoring import score
from flows.parameters import TrainParameters
from flows.recipes.changes import resolve, with_assignments
from flows.recipes.methods import METHODS
from pairflow import metrics
from pairflow.checkpoint import load_model
from pairflow.coupling import couple
from pairflow.datasets import load
from pairflow.spec import DatasetSpec

from . import one_host
from .two_hosts import Host, Hosts, obstacle, two_hosts

pytestmark = pytest.mark.timeout(1500)  # on a busy machine a job alone takes minutes to start
_STORE, _TOKEN = "s3://pairs/store", "0123456789" * 4
_PYTHON, _ROOT = sys.executable, Path(__file__).parents[2]
_DATASET = ["--dataset", "digits", "--max-rows", str(one_host.ROWS), "--json"]
_CHANGES = [word for name, value in one_host.SETTINGS.items() for word in ("--set", f"{name}={value}")]
_KEPT = re.compile(r'"PUT /pairs/store/runs/\w{64}/checkpoints/step-(\d+)/state\.json')
# Ray notices within some seconds that a node is gone; by default it takes a minute.
_NOTICED_SOON = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "5",
}
# As a container engine does: a Ray node that Ray has given up ends, and is started again.
_AGAIN = ["sh", "-c", 'while :; do "$@"; sleep 1; done', "sh"]
_FETCH_ALL = """
import boto3, pathlib, sys
client = boto3.client("s3")
for page in client.get_paginator("list_objects_v2").paginate(Bucket="pairs"):
    for each in page["Contents"]:
        path = pathlib.Path(sys.argv[1]) / each["Key"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(client.get_object(Bucket="pairs", Key=each["Key"])["Body"].read())
"""


def _bare() -> dict[str, str]:
    own = ("PAIRFLOW_", "PREFECT_", "RAY_", "MLFLOW_", "AWS_")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(own)}
    return inherited | {"PYTHONPATH": str(_ROOT), "DO_NOT_TRACK": "true", "TMPDIR": "/tmp"}  # noqa: S108 - Ray's is short


def _until(what: str, well: Callable[[], bool], timeout_s: float = 600) -> None:
    deadline = time.monotonic() + timeout_s
    while not well():
        if time.monotonic() > deadline:
            pytest.fail(f"not within {timeout_s} s: {what}")
        time.sleep(0.2)


@dataclass
class _Service:
    """All that runs, and what a user of it has in the environment: a home on the first host that is nobody else's."""

    hosts: Hosts
    user: dict[str, str]

    @property
    def folder(self) -> Path:
        return self.hosts.first.folder

    def command(self, *words: object, **more: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            self.hosts.first.command(_PYTHON, *words),
            env=self.user | more,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.folder,
        )

    def said(self, running: "subprocess.Popen[str]") -> str:
        """What a command printed, which must have gone well."""
        stdout, stderr = running.communicate(timeout=900)
        assert running.returncode == 0, stderr
        return stdout

    def result(self, running: "subprocess.Popen[str]") -> Any:
        return json.loads(self.said(running).strip().rpartition("\n")[2])

    def kept(self) -> list[int]:
        """The steps of checkpoints, in the order in which they came to the store."""
        return [int(each) for each in _KEPT.findall((self.hosts.first.logs / "s3.log").read_text())]

    def nodes(self) -> int:
        """How many machines Ray has."""
        answer = _asked(self.hosts.first, "8265/api/v0/nodes") or {"data": {"result": {"result": []}}}
        return sum(each["state"] == "ALIVE" for each in answer["data"]["result"]["result"])


def _asked(host: Host, page: str) -> Any:
    """A page of the first host, as JSON where it is; None while nobody answers."""
    code = (
        "import sys, urllib.request as r\n"
        "request = r.Request(sys.argv[1], headers={'Authorization': 'Bearer ' + sys.argv[2]})\n"
        "print(r.urlopen(request, timeout=5).read().decode())"
    )
    words = ["ip", "netns", "exec", host.name, _PYTHON, "-c", code, f"http://{host.address}:{page}", _TOKEN]
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=_bare())
    if done.returncode:
        return None
    try:
        return json.loads(done.stdout)
    except ValueError:
        return done.stdout


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Service]:
    if (why := obstacle()) is not None:
        pytest.skip(why)
    # Ray's sockets lie there, and pytest's own folder is too long a path for them.
    with tempfile.TemporaryDirectory(prefix="pf-", ignore_cleanup_errors=True) as short, contextlib.ExitStack() as kept:
        logs = tmp_path_factory.mktemp("hosts")
        kept.callback(lambda: [shutil.copy(each, logs) for each in Path(short).glob("*.log")])
        hosts = kept.enter_context(two_hosts(Path(short)))
        first, second = hosts.first, hosts.second
        at = f"http://{first.address}"
        keys = {"AWS_ENDPOINT_URL": f"{at}:7070", "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
        keys |= {"AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true"}
        keys |= {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": _TOKEN, "RAY_USAGE_STATS_ENABLED": "0"}
        history = {"MLFLOW_TRACKING_URI": f"{at}:5000"}
        first.start("s3", [_PYTHON, "-m", "moto.server", "-H", first.address, "-p", 7070], _bare())
        mlflow = [_PYTHON, "-m", "mlflow", "server", "--host", first.address, "--port", 5000, "--workers", 1]
        mlflow += ["--allowed-hosts", f"{first.address}:5000", "--serve-artifacts"]
        mlflow += ["--backend-store-uri", f"sqlite:///{first.folder}/mlflow.db"]
        mlflow += ["--artifacts-destination", first.folder / "artifacts"]
        first.start("mlflow", mlflow, _bare() | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"})
        prefect = ["-m", "flows.service.prefect", "server", "start", "--host", first.address, "--port", 4200]
        prefect_home = {"PREFECT_HOME": str(first.folder / "prefect"), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
        first.start("prefect", [_PYTHON, *prefect], _bare() | prefect_home)
        ray = [_PYTHON, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats", "--num-cpus=1"]
        ray += ["--object-store-memory=200000000", "--min-worker-port=0", "--max-worker-port=0"]

        def node(host: Host, *words: str) -> list[object]:
            return [*ray, f"--node-ip-address={host.address}", f"--temp-dir={host.folder}/ray", *words]

        def environment(host: Host) -> dict[str, str]:
            return _bare() | keys | token | history | _NOTICED_SOON | {"PAIRFLOW_HOME": str(host.folder / "node")}

        head = ["--head", "--port=6379", f"--dashboard-host={first.address}", "--dashboard-port=8265"]
        first.start("head", node(first, *head), environment(first))
        user = _bare() | keys | token | history
        user |= {"PAIRFLOW_HOME": str(first.folder / "user"), "PAIRFLOW_STORE": _STORE, "RAY_ADDRESS": f"{at}:8265"}
        user |= {"PREFECT_API_URL": f"{at}:4200/api", "PAIRFLOW_THREADS_PER_JOB": "1"}
        made = _Service(hosts, user)
        _until("Ray's head", lambda: made.nodes() == 1)
        second.start("worker", [*_AGAIN, *node(second, f"--address={first.address}:6379")], environment(second))
        for page in ("7070/moto-api/", "5000/health", "4200/api/health"):
            _until(page, lambda page=page: _asked(first, page) is not None)  # type: ignore[misc]
        made.said(made.command("-c", f"from flows.service.setup import make_store; make_store({_STORE!r})"))
        _until("both machines", lambda: made.nodes() == 2)
        yield made


def test_one_store_and_no_shared_disk_although_a_machine_is_cut_off(service: _Service, tmp_path: Path) -> None:
    app = ("-m", "flows.command.app")
    pairs = service.result(service.command(*app, "pair", *_DATASET))
    alone = one_host.started(tmp_path)
    chosen = [*_DATASET, *_CHANGES]
    training = service.command(*app, "train", *chosen, "--method", "pairflow", PAIRFLOW_TRAIN_WORKERS="2")
    _until("a checkpoint in the store", lambda: bool(service.kept()) or training.poll() is not None)
    service.hosts.cut()
    _until("Ray has one machine left", lambda: service.nodes() == 1)
    before = service.kept()
    service.hosts.mend()
    model = service.result(training)
    assert before[-1] < one_host.NUM_STEPS
    assert (kept := service.kept()) == sorted(set(kept)), "a step was taken again that was in the store"
    assert kept[-1] == model["num_steps"] == one_host.NUM_STEPS
    assert model["checkpoint"] == f"{_STORE}/runs/{model['fingerprint']}/checkpoints/step-{one_host.NUM_STEPS:08d}"
    scores = service.result(service.command(*app, "evaluate", *chosen, "--methods", "pairflow"))
    assert scores["report"].startswith(f"{_STORE}/reports/")

    # The user's home had no part in it, and has the model when it is wanted there.
    assert not (service.folder / "user" / "runs").exists()
    drawn = service.folder / "drawn.npy"
    sample = ["sample", "--model", model["fingerprint"][:12], "--num-samples", "4", "--steps", "2", "--out", drawn]
    service.said(service.command(*app, *sample))
    assert np.load(drawn).shape[0] == 4

    everything = service.folder / "bucket"
    service.said(service.command("-c", _FETCH_ALL, everything))
    store = everything / "store"
    _check_pairs(store / pairs["url"].removeprefix(_STORE).lstrip("/"))
    checkpoint = store / model["checkpoint"].removeprefix(_STORE).lstrip("/")
    assert (checkpoint / "tensors.safetensors").read_bytes() == one_host.weights(alone, tmp_path)
    _check_scores(scores, checkpoint)
    for name in ("report", "table", "figure", "grid", "trajectories"):
        assert (store / scores[name].removeprefix(_STORE).lstrip("/")).stat().st_size > 0


def _check_pairs(folder: Path) -> None:
    train = load(one_host.DATASET, progress=False).part("train")
    group = zarr.open_group(folder, mode="r")
    preset = _preset()
    np.testing.assert_array_equal(group["target"][:], train.tokens)
    expected = couple(train.tokens, vocab_size=train.vocab_size, spec=preset.coupling)
    np.testing.assert_array_equal(group["source"][:], expected)


def _check_scores(result: Any, checkpoint: Path) -> None:
    torch.set_num_threads(1)  # as the job has
    data = load(one_host.DATASET, progress=False)
    evaluator = metrics.evaluator(data, progress=False)
    loaded = load_model(checkpoint, device="cpu")
    scored = score(loaded, evaluator, _preset().evaluation, kept=1, on_calls=lambda _: None)
    (got,) = result["models"]
    assert got["checkpoint_sha256"] == json.loads((checkpoint / "state.json").read_text())["sha256"]
    means = [{name: value["mean"] for name, value in each["scores"].items()} for each in got["steps"]]
    assert means == [{name: value.mean for name, value in each.scores.items()} for each in scored.steps]


def _preset() -> Any:
    chosen = TrainParameters(dataset=DatasetSpec(name="digits", max_rows=one_host.ROWS), method="pairflow")
    assert METHODS["pairflow"].pairs == "coupling"
    return resolve(with_assignments(chosen, one_host.SETTINGS))
