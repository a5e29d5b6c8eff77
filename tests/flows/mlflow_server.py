"""A real MLflow server on loopback that can be killed, started again in its place, and made slow."""

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from flows.service import server_logs

from ..ports import free_port


class MlflowServer:
    """A server on a free port, with its history in SQLite below `folder`; every start finds it again."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.database = f"sqlite:///{folder / 'mlflow.db'}"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it, and waits until it answers."""
        command = [
            *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)),
            *("--workers", "1", "--backend-store-uri", self.database, "--no-serve-artifacts"),
            *("--default-artifact-root", (self._folder / "artifacts").as_uri()),
        ]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
        environment |= {
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "DO_NOT_TRACK": "true",
        }
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        deadline = time.monotonic() + 180
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                with urllib.request.urlopen(f"{self.url}/health", timeout=5):  # noqa: S310 - http
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.2)
        raise AssertionError(f"MLflow's server does not come up: {(self._folder / 'server.log').read_text()[-2000:]}")

    def kill(self) -> None:
        """Ends it as a crash would."""
        if self._process is not None:
            self._signal(signal.SIGKILL)
            self._process.wait(30)
            self._process = None

    def pause(self) -> None:
        """Makes it slow: it takes connections, and answers nothing."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Lets it answer again."""
        self._signal(signal.SIGCONT)

    def troubles(self) -> list[str]:
        """What it wrote that somebody should know of."""
        written = (self._folder / "server.log").read_text(encoding="utf-8", errors="replace").splitlines()
        return [each for each in server_logs.records(written) if server_logs.is_trouble("mlflow", each)]

    def _signal(self, number: int) -> None:
        assert self._process is not None
        os.killpg(self._process.pid, number)  # its own session, so its own processes only
