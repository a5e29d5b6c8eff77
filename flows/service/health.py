"""How the servers are, asked over HTTP as their users do; and who has a port that one of them wants."""

import errno
import json
import socket
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any

import psutil

from flows.home.settings import Settings
from flows.home.token import access_token, token_headers
from flows.service.programs import WORK_POOL, ProgramName, urls

_TIMEOUT_S = 5


def is_healthy(name: ProgramName, settings: Settings) -> bool:
    """Whether a program answers, and answers well; the reconciler, which nobody asks, does by being there."""
    at = urls(settings)
    # Of both servers something that needs their database: /health answers even when that is away.
    if name == "prefect":
        return _answers(f"{at['prefect']}/api/ready")
    if name == "mlflow":
        return _answers(f"{at['mlflow']}/api/2.0/mlflow/experiments/search?max_results=1")
    if name == "ray":
        return _answers(f"{at['ray']}/api/jobs/", headers=token_headers(access_token(settings.home)))
    if name == "worker":
        workers = _ask(f"{at['prefect']}/api/work_pools/{WORK_POOL}/workers/filter", body={})
        return any(each["status"] == "ONLINE" for each in workers or [])
    return True


@dataclass(frozen=True)
class PortHolder:
    """A process that listens on a port, as far as it may be seen."""

    port: int
    pid: int | None
    command: str

    def __str__(self) -> str:
        if self.pid is None:
            return "a process of another user"
        return f"process {self.pid} ({self.command})"


def port_holder(port: int) -> PortHolder | None:
    """Who listens on this port of 127.0.0.1; None if it can be had."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
        else:
            return None
    for connection in psutil.net_connections("tcp"):
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port and connection.pid is not None:
            try:
                words = psutil.Process(connection.pid).cmdline()
            except psutil.Error:
                continue
            return PortHolder(port, connection.pid, " ".join(words)[:120])
    return PortHolder(port, None, "")


def _answers(url: str, headers: dict[str, str] | None = None) -> bool:
    return _request(url, headers or {}, None) is not None


def _ask(url: str, body: dict[str, Any]) -> Any:
    answer = _request(url, {"Content-Type": "application/json"}, json.dumps(body).encode())
    return None if answer is None else json.loads(answer)


def _request(url: str, headers: dict[str, str], data: bytes | None) -> bytes | None:
    request = urllib.request.Request(url, headers=headers, data=data)  # noqa: S310 - http on loopback
    # A proxy of the environment must not be asked for this machine's own loopback.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=_TIMEOUT_S) as response:
            return bytes(response.read())
    except (urllib.error.URLError, OSError):
        return None
