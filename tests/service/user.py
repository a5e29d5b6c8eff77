"""What a user does with the servers of `pairflow up`: over HTTP, and by the command line."""

import base64
import contextlib
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any, Literal
from unittest import mock

import psutil
from mlflow import MlflowClient

from flows.cluster.protocol import JOB_URL_VARIABLE
from flows.home.token import mlflow_credential
from flows.service import server_logs, watch
from flows.service.programs import PROGRAM_NAMES
from flows.service.remains import processes_of

_PATIENCE_S = 300.0
"""No wait ends sooner, whatever it is told. What is waited for comes in seconds, but on two cores that the rest of the
suite works on, a Ray head takes a minute or two to come back, and `pairflow status` ten seconds to answer."""


class User:
    """Somebody with a home and free ports."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.environment = environment
        self.home = Path(environment["PAIRFLOW_HOME"])
        self.prefect = f"http://127.0.0.1:{environment['PAIRFLOW_PREFECT_PORT']}"
        self.mlflow = f"http://127.0.0.1:{environment['PAIRFLOW_MLFLOW_PORT']}"
        self.ray = f"http://127.0.0.1:{environment['PAIRFLOW_RAY_PORT']}"
        self._spoiled: set[str] = set()
        logs = self.home / "service" / "logs"
        self._logs = {name: server_logs.Tail(logs / f"{name}.log") for name in PROGRAM_NAMES}

    def run(self, *arguments: object, **variables: str) -> "subprocess.CompletedProcess[str]":
        """`pairflow ...` in a terminal of this user."""
        return subprocess.run(
            [sys.executable, "-m", "flows.command.app", *map(str, arguments)],
            env=self.environment | variables,
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )

    def ask(self, path: str, body: Any = None) -> Any:
        """An answer of Prefect's API; None with a body of None is a GET.

        Raises:
            urllib.error.HTTPError: the server refuses.
        """
        return _json(f"{self.prefect}/api/{path}", body, **self.credential("prefect"))

    def tell(self, method: str, path: str, body: Any = None) -> None:
        """What Prefect's pages send to change or delete something."""
        headers = {"Content-Type": "application/json", **self.credential("prefect")}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.prefect}/api/{path}", data, headers, method=method)  # noqa: S310 - http
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
            assert answer.status == HTTPStatus.NO_CONTENT

    def credential(self, server: Literal["prefect", "mlflow", "ray"]) -> dict[str, str]:
        """The header with which a server lets this user in."""
        token = (self.home / "ray" / "token").read_text()
        basic = base64.b64encode(f"pairflow:{token}".encode()).decode()
        return {"Authorization": f"Bearer {token}" if server == "ray" else f"Basic {basic}"}

    def get(self, url: str, server: Literal["prefect", "mlflow", "ray"]) -> int:
        """The status of what a server answers to this user's browser."""
        request = urllib.request.Request(url, headers=self.credential(server))  # noqa: S310 - http
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
            return int(answer.status)

    @contextlib.contextmanager
    def mlflow_client(self) -> Iterator[MlflowClient]:
        """As in a notebook, after the exports that `pairflow up` prints."""
        with mock.patch.dict(os.environ, mlflow_credential(self.home / "ray" / "token")):
            yield MlflowClient(self.mlflow)

    def deployment(self, name: str) -> Any:
        return self.ask(f"deployments/name/{name}/{name}")

    def start(self, name: str, parameters: Any) -> str:
        """Starts a deployment; the flow run's id."""
        body = {"parameters": {"parameters": parameters}}
        return str(self.ask(f"deployments/{self.deployment(name)['id']}/create_flow_run", body)["id"])

    def flow_run(self, flow_run_id: str) -> Any:
        return self.ask(f"flow_runs/{flow_run_id}")

    def log(self, flow_run_id: str) -> str:
        """The first lines of a run's log, one after the other."""
        body = {"logs": {"flow_run_id": {"any_": [flow_run_id]}}, "sort": "TIMESTAMP_ASC", "limit": 200}
        return "\n".join(each["message"] for each in self.ask("logs/filter", body))

    def set_state(self, flow_run_id: str, kind: str, name: str) -> None:
        answer = self.ask(f"flow_runs/{flow_run_id}/set_state", {"state": {"type": kind, "name": name}})
        assert answer["status"] == "ACCEPT", answer

    def wait_for_state(self, flow_run_id: str, *names: str, timeout_s: float = 120) -> Any:
        """The flow run, once it is in one of these states."""
        self.wait_for(
            lambda: self.flow_run(flow_run_id)["state_name"] in names,
            timeout_s=timeout_s,
            or_say=lambda: self.flow_run(flow_run_id)["state"],
        )
        return self.flow_run(flow_run_id)

    def jobs(self, flow_run_id: str | None = None) -> dict[str, str]:
        """Ray jobs, all or those of a flow run: submission id -> status."""
        jobs = _json(f"{self.ray}/api/jobs/", None, **self.credential("ray"))
        return {
            each["submission_id"]: each["status"]
            for each in jobs
            if flow_run_id is None or (each["metadata"] or {}).get("flow_run_id") == flow_run_id
        }

    def spoils(self, *programs: str) -> None:
        """What these write until the next look is this test's doing, which kills them."""
        self._spoiled |= set(programs)

    def troubles(self) -> list[str]:
        """What the servers wrote since the last look that somebody should know of."""
        spoiled, self._spoiled = self._spoiled, set()
        return [
            f"{name}: {each[:2000]}"
            for name, tail in self._logs.items()
            for each in [*tail.read(), *tail.read()]
            if name not in spoiled and server_logs.is_trouble(name, each)
        ]

    def work(self) -> dict[str, str | None]:
        """What `pairflow status` says of each thing that the servers do: why it is not well, or None."""
        found = json.loads(self.run("status", "--json").stdout)["work"]
        return {each["name"]: each["reason"] for each in found}

    def wait_for_work(self, holds: Callable[[dict[str, str | None]], bool], *, timeout_s: float = 120) -> None:
        """Until this holds of what `pairflow status` says of each thing that the servers do.

        The command costs a core a second. So it is asked only when the file has it in which the watch leaves what it
        found, and from which the command reads it.
        """

        def found() -> dict[str, str | None]:
            report = watch.read(self.home)
            return {} if report is None else {each.name: each.reason for each in report.findings}

        self.wait_for(lambda: holds(found()) and holds(self.work()), timeout_s=timeout_s, or_say=self.work)

    def wait_until_well(self) -> None:
        """Until `pairflow status` finds nothing wrong, even if Ray is too slow twice for the 30 s of `ray start`."""

        def answers() -> bool:
            try:
                return self.get(f"{self.ray}/api/version", "ray") == HTTPStatus.OK
            except OSError:
                return False

        # Ray is what takes long: the command, which costs a core a second, is asked once that is there.
        self.wait_for(lambda: answers() and self.run("status").returncode == 0, timeout_s=400, or_say=self.how_it_is)

    def how_it_is(self) -> str:
        """What `pairflow status` says, and what was written last about the programs and by Ray, which dies most."""
        told = [self.run("status").stdout]
        for name in ("supervisor", "ray"):
            told += [f"{name}.log ends with", *self.run("logs", name, "--lines", "40").stdout.splitlines()]
        return "\n".join(told)

    def processes(self) -> list[psutil.Process]:
        """Everything under the supervisor of this home, itself included."""
        return processes_of(self.home)

    def records(self) -> dict[str, int]:
        """Written shard records of all couplings, with when they were written."""
        return {str(path): path.stat().st_mtime_ns for path in self.home.glob("store/pairs/*/_records/[0-9]*.json")}

    def find_processes(self, words: str, **variables: str) -> list[psutil.Process]:
        """Processes with these words in their command line, and these environment variables."""
        found = []
        for each in self.processes():
            with contextlib.suppress(psutil.Error):
                if words in " ".join(each.cmdline()) and variables.items() <= each.environ().items():
                    found.append(each)
        return found

    def driver(self, flow_run_id: str) -> psutil.Process:
        """The process of a run's Ray job; the shell that it runs in has the same words."""
        return next(
            each
            for each in self.find_processes("-m flows.jobs.")
            if "python" in each.exe() and flow_run_id in each.environ().get(JOB_URL_VARIABLE, "")
        )

    def process(self, words: str, **variables: str) -> psutil.Process:
        """The first of them."""
        found = self.find_processes(words, **variables)
        assert found, f"no process with {words!r} in its command line"
        return found[0]

    @staticmethod
    def wait_for(
        condition: Callable[[], object], *, timeout_s: float, or_say: Callable[[], object] = lambda: ""
    ) -> None:
        patience_s = max(timeout_s, _PATIENCE_S)
        deadline = time.monotonic() + patience_s
        while not condition():
            assert time.monotonic() < deadline, f"not within {patience_s:.0f} s; {or_say()}"
            time.sleep(0.5)


def words_of(process: psutil.Process) -> str:
    """The command line; of one that has ended, nothing."""
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""


def _json(url: str, body: Any, **headers: str) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers={"Content-Type": "application/json", **headers})  # noqa: S310
    deadline = time.monotonic() + 120
    while True:
        try:
            with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310 - http
                return json.load(response)
        except urllib.error.HTTPError as error:
            # Prefect's answer while its database is busy: nothing was done, and its own client asks again.
            if error.code != HTTPStatus.SERVICE_UNAVAILABLE or time.monotonic() > deadline:
                raise
            error.close()
            time.sleep(1)
