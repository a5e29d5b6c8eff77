"""How the servers are, asked over HTTP as their users do; and who has a port that one of them wants."""

import errno
import socket
from collections.abc import Mapping
from dataclasses import dataclass

import psutil

from flows.home.settings import Settings
from flows.home.token import access_token, token_headers
from flows.service import watch
from flows.service.http import ask, request
from flows.service.programs import WORK_POOL, ProgramName, urls


def is_healthy(name: ProgramName, settings: Settings) -> bool:
    """Whether a program answers, and answers well; the watch by what it leaves, and over the reconciler it watches."""
    at = urls(settings)
    # Of both servers something that needs their database: /health answers even when that is away.
    if name == "prefect":
        return _answers(f"{at['prefect']}/api/ready")
    if name == "mlflow":
        return _answers(f"{at['mlflow']}/api/2.0/mlflow/experiments/search?max_results=1")
    if name == "ray":
        return _answers(f"{at['ray']}/api/jobs/", headers=token_headers(access_token(settings.home)))
    if name == "worker":
        return _worker_is_online(at["prefect"])
    if name == "watch":
        return watch.read(settings.home) is not None
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


def _answers(url: str, headers: Mapping[str, str] | None = None) -> bool:
    try:
        request(url, headers=headers)
    except OSError:
        return False
    return True


def _worker_is_online(url: str) -> bool:
    try:
        workers = ask(f"{url}/api/work_pools/{WORK_POOL}/workers/filter", {})
    except (OSError, ValueError):
        return False
    return any(each["status"] == "ONLINE" for each in workers)
