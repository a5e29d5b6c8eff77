"""One Ray cluster, one Prefect server and one home for the whole session: real ones, on loopback and free ports.

Each is ended by whoever started it, by its process id.
"""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow import MlflowClient

from flows.cluster.local import LocalCluster, wait_for_head
from flows.home.environment import prefect_environment
from flows.home.settings import Settings
from flows.home.token import access_token, cluster_environment
from flows.service import server_logs

from ..ports import free_port
from . import forked_trials, nursery
from .forked_jobs import GCS_VARIABLE

# What the developer may have set, and what must not leak into a test.
_OWN_VARIABLES = ("PAIRFLOW_", "PREFECT_", "RAY_", "MLFLOW_")

PIPELINE = [
    *("pipeline", "--dataset", "nci", "--max-rows", 150, "--json"),
    *("--set", "training.num_steps=6", "--set", "training.batch_size=16", "--set", "model.hidden_size=16"),
    *("--set", "evaluation.steps=[1,2]", "--set", "evaluation.num_samples=8", "--set", "evaluation.num_trials=2"),
]
"""The one pipeline of the session, at a tiny size; who breaks what it left puts it back."""


@dataclass(frozen=True)
class Finished:
    """A command that has ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def last_line(self) -> str:
        return self.stdout.rstrip("\n").rpartition("\n")[2]


Cli = Callable[..., Finished]
_COMMAND = "flows.command.app"


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def bare_environment(home: Path) -> dict[str, str]:
    """What a newcomer has: a home, and no servers."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(_OWN_VARIABLES)}
    # One thread a job: the machine that runs the tests has other things to do.
    own = {"PAIRFLOW_HOME": str(home), "PAIRFLOW_THREADS_PER_JOB": "1", "COLUMNS": "200", "NO_COLOR": "1"}
    return inherited | own


@pytest.fixture(scope="session")
def ray_cluster(home: Path) -> Iterator[LocalCluster]:
    with LocalCluster(home, object_store_mb=200, num_cpus=2) as cluster:
        cluster.wait()
        yield cluster


@pytest.fixture(scope="session")
def prefect_url(home: Path, bare_environment: dict[str, str]) -> Iterator[str]:
    port = free_port()
    server_start = ("flows.service.prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port))
    command = [sys.executable, "-m", *server_start]
    environment = bare_environment | prefect_environment(Settings(home=home))
    with (home / "prefect-server.log").open("wb") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        url = f"http://127.0.0.1:{port}/api"
        _wait_until_healthy(f"{url}/health", server)
        yield url
    finally:
        server.terminate()
        server.wait(30)
    # A server that answers and does not work says so here, and nowhere else.
    written = (home / "prefect-server.log").read_text(encoding="utf-8", errors="replace").splitlines()
    assert [each for each in server_logs.records(written) if server_logs.is_trouble("prefect", each)] == []


def _wait_until_healthy(url: str, server: "subprocess.Popen[bytes]", timeout_s: float = 180) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):  # noqa: S310 - http
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.3)
    pytest.fail(f"Prefect's server did not become healthy within {timeout_s} s")


@pytest.fixture(scope="session")
def served_environment(bare_environment: dict[str, str], ray_cluster: LocalCluster, prefect_url: str) -> dict[str, str]:
    """Environment of a process that uses the session's servers."""
    return {**bare_environment, **ray_cluster.environment, "PREFECT_API_URL": prefect_url}


@pytest.fixture(scope="session")
def nursery_address(home: Path, bare_environment: dict[str, str]) -> Iterator[Path]:
    """Of a process that has imported what commands and jobs need, and forks them off."""
    # What Prefect, MLflow and Ray read of their environment as they are imported is the same in all commands and jobs.
    of_all = prefect_environment(Settings(home=home)) | cluster_environment(access_token(home))
    with nursery.running(bare_environment | of_all, home / "nursery.log") as address:
        yield address


@pytest.fixture(scope="session")
def strangers_address(home: Path, bare_environment: dict[str, str]) -> Iterator[Path]:
    """Of a process that has imported what a model needs that is loaded back, and nothing of ours."""
    with nursery.running(bare_environment, home / "strangers.log", "strangers") as address:
        yield address


@pytest.fixture(scope="session")
def cli_environment(
    served_environment: dict[str, str], ray_cluster: LocalCluster, nursery_address: Path, strangers_address: Path
) -> dict[str, str]:
    """Of a command that uses the session's servers, and forks off the nursery, as do its jobs."""
    return served_environment | {
        nursery.VARIABLE: str(nursery_address),
        forked_trials.VARIABLE: str(strangers_address),
        GCS_VARIABLE: wait_for_head(ray_cluster.folder, patience_s=60),
        "PAIRFLOW_GPUS_PER_JOB": "0",
    }


@pytest.fixture(scope="session")
def cli(cli_environment: dict[str, str], nursery_address: Path, tmp_path_factory: pytest.TempPathFactory) -> Cli:
    """Runs `pairflow ...` against the session's servers, in a process that is forked, and so are its jobs."""
    return _forked(cli_environment, nursery_address, tmp_path_factory)


@pytest.fixture(scope="session")
def bare_cli(bare_environment: dict[str, str], nursery_address: Path, tmp_path_factory: pytest.TempPathFactory) -> Cli:
    """Runs `pairflow ...` in a process that is forked, and finds no servers."""
    return _forked(bare_environment, nursery_address, tmp_path_factory)


def _forked(environment: dict[str, str], address: Path, folders: pytest.TempPathFactory) -> Cli:
    def run(*arguments: object, **variables: str) -> Finished:
        folder = folders.mktemp("said")
        said = folder / "stdout", folder / "stderr"
        words, its_own = list(map(str, arguments)), environment | variables
        child = nursery.Child(address, _COMMAND, words, environment=its_own, stdout=said[0], stderr=said[1])
        try:
            code = child.wait(600)
        except TimeoutError:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            raise
        return Finished(code, *(path.read_text() for path in said))

    return run


@pytest.fixture(scope="session")
def new_cli(served_environment: dict[str, str]) -> Cli:
    """Runs `pairflow ...` against the session's servers as a user does: a new process, and jobs by Ray's server."""
    return _new(served_environment)


@pytest.fixture(scope="session")
def new_bare_cli(bare_environment: dict[str, str]) -> Cli:
    """Runs `pairflow ...` as a user does who has no servers."""
    return _new(bare_environment)


def _new(environment: dict[str, str]) -> Cli:
    def run(*arguments: object, **variables: str) -> Finished:
        done = subprocess.run(
            [sys.executable, "-m", _COMMAND, *map(str, arguments)],
            env=environment | variables,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        return Finished(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture(scope="session")
def pipeline_result(new_cli: Cli) -> dict[str, Any]:
    done = new_cli(*PIPELINE)
    assert done.code == 0, done.stderr
    document: dict[str, Any] = json.loads(done.last_line)
    return document


@pytest.fixture(scope="session")
def history(home: Path, pipeline_result: dict[str, Any]) -> MlflowClient:
    """MLflow, as that pipeline left it."""
    return MlflowClient(f"sqlite:///{home}/mlflow/mlflow.db")


@pytest.fixture
def in_this_process(bare_environment: dict[str, str]) -> Iterator[None]:
    """A newcomer's, with this home; the command sets it up for itself in this process, which must not stay so."""
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(bare_environment | {"COLUMNS": "300"})
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="session")
def tokens_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty rows of eight tokens, K = 5: row i is i written in base 5, twice over."""
    rows = np.arange(40)[:, None] // 5 ** np.arange(4) % 5
    path = tmp_path_factory.mktemp("data") / "rows.npy"
    np.save(path, np.concatenate([rows, rows], axis=1).astype(np.uint8))
    return path
