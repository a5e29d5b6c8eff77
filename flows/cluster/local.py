"""A Ray cluster on this machine, for as long as somebody needs it and not a moment longer.

`LocalCluster` starts a holder (this module run as a program; see `flows.home.held`), which starts
`ray start --head --block` and ends it with its owner: its own processes only, by process id. Everything listens on
loopback, with a token, on free ports, in a folder of its own, so that neither another Ray of this machine nor the
remains of one can get in the way.
"""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from flows.home.held import hold, let_go, start_holder
from flows.home.temporary import ray_folder
from flows.home.token import access_token, cluster_environment, token_headers
from pairflow.errors import JobFailedError

RAY_START = (sys.executable, "-m", "ray.scripts.scripts", "start")
_WANTED = "wanted"
START_PATIENCE_S = 300.0
"""Ray gives its raylet 30 s; on a busy machine those pass, and the next attempt, with all of it in memory, succeeds."""
_TOO_SLOW = ("timed out during startup", "Failed to start", "address already in use", "Address already in use")


class LocalCluster:
    """A local Ray head; a context manager that starts it at once, and it is waited for when used.

    Args:
        home: PAIRFLOW_HOME; the access token lies there, readable by its owner only.
        object_store_mb: shared memory for objects, MiB.
        num_cpus: CPUs that Ray may hand out; all of this machine by default.
        job_server: whether it has Ray's dashboard, which takes jobs over HTTP.
        for_jobs: environment variables of every job. Jobs that need no others need no runtime environment.
        patience_s: how long it may take to start, in seconds, attempts that were too slow included.

    Raises:
        SpecError: there is no place for its sockets.
        JobFailedError: Ray did not start, with the end of its log.
    """

    def __init__(
        self,
        home: Path,
        *,
        object_store_mb: int,
        num_cpus: int | None = None,
        job_server: bool = True,
        for_jobs: Mapping[str, str] | None = None,
        patience_s: float = START_PATIENCE_S,
    ) -> None:
        self._token_path = access_token(home)
        self._patience_s = patience_s
        self.folder = ray_folder()
        (dashboard_port,) = free_ports(1)
        self.address = f"http://127.0.0.1:{dashboard_port}"
        request = {
            "folder": str(self.folder),
            "dashboard_port": dashboard_port,
            "object_store_mb": object_store_mb,
            "num_cpus": num_cpus,
            "job_server": job_server,
            "patience_s": patience_s,
        }
        self._request = json.dumps(request)
        self._environment = os.environ | dict(for_jobs or {}) | cluster_environment(self._token_path)
        self._supervisor: subprocess.Popen[bytes] | None = None
        self._one_at_a_time = threading.Lock()

    def start(self) -> None:
        """Starts it; calling it again does nothing."""
        with self._one_at_a_time:
            if self._supervisor is None:
                self._supervisor = start_holder(
                    "flows.cluster.local",
                    self._request,
                    environment=self._environment,
                    folder=self.folder,  # of jobs too: `python -m` must not find modules of wherever the user stands
                )

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables with which a Ray client of this machine gets in."""
        return {"RAY_ADDRESS": self.address, **cluster_environment(self._token_path)}

    @property
    def headers(self) -> dict[str, str]:
        """HTTP headers with which the job server lets a request in."""
        return token_headers(self._token_path)

    @property
    def wanted(self) -> bool:
        """Whether somebody waits for it."""
        return (self.folder / _WANTED).exists()

    def check(self) -> None:
        """Makes sure that it has not ended.

        Raises:
            JobFailedError: it has, with the end of its log.
        """
        if self._supervisor is not None and self._supervisor.poll() is not None:
            raise JobFailedError(f"the local Ray cluster did not start, or has ended: {self._log_tail()}")

    def wait(self) -> None:
        """Returns when its job server accepts jobs."""
        deadline = time.monotonic() + self._patience_s
        request = urllib.request.Request(f"{self.address}/api/jobs/", headers=self.headers)  # noqa: S310 - http
        while True:
            self.check()
            try:
                with urllib.request.urlopen(request, timeout=5) as response:  # noqa: S310 - http
                    response.read()
                    return
            except (urllib.error.URLError, OSError):
                if time.monotonic() > deadline:
                    raise JobFailedError(
                        f"the local Ray cluster was not ready after {self._patience_s:.0f} s: {self._log_tail()}"
                    ) from None
                time.sleep(0.2)

    def stop(self) -> None:
        """Ends the cluster and waits until it is gone; calling it again does nothing."""
        if self._supervisor is not None:
            let_go(self._supervisor)
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _log_tail(self) -> str:
        log = self.folder / "head.log"
        lines = log.read_text(errors="replace").strip().splitlines() if log.is_file() else []
        return " / ".join(lines[-5:]) or "it left no log"


def wait_for_head(folder: Path, patience_s: float) -> str:
    """Where a process of this machine finds the head whose folder this is, once it has started: host:port.

    That it is wanted is said by a file there, for an owner who starts it only then (`wanted`).

    Raises:
        JobFailedError: it has not, so many seconds long.
    """
    (folder / _WANTED).touch()
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        with contextlib.suppress(FileNotFoundError):
            if address := (folder / "ray_current_cluster").read_text().strip():  # written last, by `ray start`
                return address
        time.sleep(0.05)
    raise JobFailedError(f"the local Ray cluster was not ready after {patience_s:.0f} s; its log is {folder}/head.log")


def head_command(
    folder: Path, dashboard_port: int, *, object_store_mb: int, num_cpus: int | None = None
) -> tuple[list[str], dict[str, str]]:
    """Arguments of `ray start` for a head on loopback, and the environment that belongs to them.

    All ports but the dashboard's are free ones, asked for now: make a new command for every start.
    """
    client_port, scaler_metrics_port, dashboard_metrics_port = free_ports(3)
    arguments = [
        "--head",
        "--block",
        "--disable-usage-stats",
        "--port=0",
        "--node-ip-address=127.0.0.1",
        "--dashboard-host=127.0.0.1",
        f"--dashboard-port={dashboard_port}",
        "--dashboard-agent-listen-port=0",
        f"--ray-client-server-port={client_port}",
        "--min-worker-port=0",
        "--max-worker-port=0",
        f"--object-store-memory={object_store_mb * 2**20}",
        f"--temp-dir={folder}",
        *([f"--num-cpus={num_cpus}"] if num_cpus else []),
    ]
    environment = {
        "AUTOSCALER_METRIC_PORT": str(scaler_metrics_port),
        "DASHBOARD_METRIC_PORT": str(dashboard_metrics_port),
        # A job that waits for a GPU fails after this; Ray's default are 15 minutes, and others train for days.
        "RAY_JOB_START_TIMEOUT_SECONDS": str(30 * 24 * 3600),
    }
    return arguments, environment


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on; held open together, so that they differ."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def _hold(request: dict[str, Any]) -> int:
    folder = Path(request["folder"])

    def command() -> tuple[list[str], dict[str, str]]:
        arguments, environment = head_command(
            folder,
            request["dashboard_port"],
            object_store_mb=request["object_store_mb"],
            num_cpus=request["num_cpus"],
        )
        arguments += ["--no-monitor"]  # nobody adds machines to this one
        if not request["job_server"]:
            arguments += ["--include-dashboard=false"]
            # No workers for a first job that may have no tasks: they would take its cores as they start.
            environment |= {"RAY_prestart_worker_first_driver": "0"}
        return [*RAY_START, *arguments], os.environ | environment

    code = hold(
        command,
        folder / "head.log",
        again=lambda said: any(each in said for each in _TOO_SLOW),
        patience_s=request["patience_s"],
        grace_s=0,  # its jobs have ended, and it keeps nothing: to end it in order takes two seconds
    )
    if code is None:
        shutil.rmtree(folder, ignore_errors=True)
    return code or 0


if __name__ == "__main__":
    sys.exit(_hold(json.loads(sys.argv[1])))
