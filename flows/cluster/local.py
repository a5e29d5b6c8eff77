"""A Ray cluster on this machine, for as long as somebody needs it and not a moment longer.

`LocalCluster` starts a small supervisor (this module run as a program), which starts `ray start --head --block` and
watches its standard input. When the owner closes that pipe, or dies in any way at all, the supervisor ends
Ray: its own processes only, by process id. Everything listens on loopback, with a token, on free ports, in a
folder of its own, so that neither another Ray of this machine nor the remains of one can get in the way.
"""

import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from flows.home.token import access_token, cluster_environment, token_headers
from pairflow.errors import JobFailedError

RAY_START = (sys.executable, "-m", "ray.scripts.scripts", "start")
_START_TIMEOUT_S = 120
_STOP_TIMEOUT_S = 20


class LocalCluster:
    """A local Ray head with a job server; a context manager that starts at once and is waited for when used.

    Args:
        home: PAIRFLOW_HOME; the access token lies there, readable by its owner only.
        object_store_mb: shared memory for objects, MiB.
        num_cpus: CPUs that Ray may hand out; all of this machine by default.

    Raises:
        JobFailedError: Ray did not start, with the end of its log.
    """

    def __init__(self, home: Path, *, object_store_mb: int, num_cpus: int | None = None) -> None:
        self._token_path = access_token(home)
        # Unix socket paths end at 107 bytes, so this cannot lie under an arbitrarily deep home.
        self._folder = Path(tempfile.mkdtemp(prefix="pairflow-ray-"))
        (dashboard_port,) = _free_ports(1)
        self.address = f"http://127.0.0.1:{dashboard_port}"
        arguments, own_environment = head_command(
            self._folder, dashboard_port, object_store_mb=object_store_mb, num_cpus=num_cpus
        )
        request = {"folder": str(self._folder), "arguments": arguments}
        self._supervisor = subprocess.Popen(  # noqa: S603 - our own module, no shell
            [sys.executable, "-m", "flows.cluster.local", json.dumps(request)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=self._folder,  # jobs start here: `python -m` must not find modules of wherever the user stands
            env=os.environ | cluster_environment(self._token_path) | own_environment,
            start_new_session=True,  # Ctrl-C belongs to the owner, which stops its job before it lets go of Ray
        )

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables with which a Ray client of this machine gets in."""
        return {"RAY_ADDRESS": self.address, **cluster_environment(self._token_path)}

    @property
    def headers(self) -> dict[str, str]:
        """HTTP headers with which the job server lets a request in."""
        return token_headers(self._token_path)

    def wait(self) -> None:
        """Returns when the cluster accepts jobs."""
        deadline = time.monotonic() + _START_TIMEOUT_S
        request = urllib.request.Request(f"{self.address}/api/jobs/", headers=self.headers)  # noqa: S310 - http
        while True:
            if self._supervisor.poll() is not None:
                raise JobFailedError(f"the local Ray cluster did not start: {self._log_tail()}")
            try:
                with urllib.request.urlopen(request, timeout=5) as response:  # noqa: S310 - http
                    response.read()
                    return
            except (urllib.error.URLError, OSError):
                if time.monotonic() > deadline:
                    raise JobFailedError(
                        f"the local Ray cluster was not ready after {_START_TIMEOUT_S} s: {self._log_tail()}"
                    ) from None
                time.sleep(0.2)

    def stop(self) -> None:
        """Ends the cluster and waits until it is gone; calling it again does nothing."""
        if self._supervisor.stdin is not None and not self._supervisor.stdin.closed:
            self._supervisor.stdin.close()
        try:
            self._supervisor.wait(_STOP_TIMEOUT_S + 10)
        except subprocess.TimeoutExpired:
            self._supervisor.kill()
            self._supervisor.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _log_tail(self) -> str:
        log = self._folder / "head.log"
        lines = log.read_text(errors="replace").strip().splitlines() if log.is_file() else []
        return " / ".join(lines[-5:]) or "it left no log"


def head_command(
    folder: Path, dashboard_port: int, *, object_store_mb: int, num_cpus: int | None = None
) -> tuple[list[str], dict[str, str]]:
    """Arguments of `ray start` for a head on loopback, and the environment that belongs to them.

    All ports but the dashboard's are free ones, asked for now: make a new command for every start.
    """
    client_port, scaler_metrics_port, dashboard_metrics_port = _free_ports(3)
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


def _free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on; held open together, so that they differ."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def _supervise(folder: Path, arguments: list[str], owner: IO[Any]) -> int:
    """Runs `ray start` until `owner` (a pipe that nobody writes to) closes, or until Ray ends by itself."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(1))
    with (folder / "head.log").open("wb") as log:
        head = subprocess.Popen(  # noqa: S603 - our own arguments, no shell
            [*RAY_START, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            preexec_fn=_die_with_parent(),
        )
    released = threading.Event()

    def watch_owner() -> None:
        owner.read()
        released.set()

    threading.Thread(target=watch_owner, daemon=True).start()
    try:
        while head.poll() is None and not released.wait(0.5):
            pass
    finally:
        if head.poll() is None:
            head.terminate()
            try:
                head.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                head.kill()
        if released.is_set():
            shutil.rmtree(folder, ignore_errors=True)
    return head.wait()


def _die_with_parent() -> Callable[[], None] | None:
    """On Linux, makes a child end with this process even where that is killed and runs no `finally`."""
    if not sys.platform.startswith("linux"):
        return None
    prctl, set_parent_death_signal = ctypes.CDLL(None, use_errno=True).prctl, 1
    return lambda: prctl(set_parent_death_signal, signal.SIGTERM)


if __name__ == "__main__":
    _request = json.loads(sys.argv[1])
    sys.exit(_supervise(Path(_request["folder"]), _request["arguments"], sys.stdin.buffer))
