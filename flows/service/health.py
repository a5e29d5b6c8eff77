"""How the servers are, asked over HTTP as their users do; and who has a port that one of them wants."""

import errno
import socket
from collections.abc import Mapping
from dataclasses import dataclass

import psutil

from flows.home.settings import Settings
from flows.service import probes, watch
from flows.service.http import ask, request
from flows.service.programs import WORK_POOL, ProgramName, headers, urls

# Of both servers something that needs their database: /health answers even when that is away.
_QUESTIONS: dict[ProgramName, str] = {
    "prefect": "/api/ready",
    "mlflow": "/api/2.0/mlflow/experiments/search?max_results=1",
    "ray": "/api/jobs/",
}
# Whether it is ready Prefect says to everybody.
_FOR_ITS_OWNER: dict[ProgramName, str] = _QUESTIONS | {"prefect": "/api/admin/version"}


def is_healthy(name: ProgramName, settings: Settings) -> bool:
    """Whether a program answers, and answers well; the watch by what it leaves, and over the reconciler it watches."""
    if name == "ray" and not _ray_can_work(settings):
        return False
    if name in _QUESTIONS:
        return _answers(f"{urls(settings)[name]}{_QUESTIONS[name]}", headers(name, settings))
    if name == "worker":
        return _worker_is_online(settings)
    if name == "watch":
        return watch.read(settings.home) is not None
    return True


def lets_anybody_in(name: ProgramName, settings: Settings) -> bool:
    """Whether a server answers somebody who has no token."""
    return name in _FOR_ITS_OWNER and _answers(f"{urls(settings)[name]}{_FOR_ITS_OWNER[name]}")


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
            return PortHolder(port, connection.pid, " ".join(words).strip()[:120])
    return PortHolder(port, None, "")


def _answers(url: str, with_headers: Mapping[str, str] | None = None) -> bool:
    try:
        request(url, headers=with_headers)
    except OSError:
        return False
    return True


def _ray_can_work(settings: Settings) -> bool:
    try:
        return probes.ray_has_a_node(settings)
    except (OSError, ValueError, KeyError, TypeError):  # not there, or not yet as it will answer
        return False


def _worker_is_online(settings: Settings) -> bool:
    url = f"{urls(settings)['prefect']}/api/work_pools/{WORK_POOL}/workers/filter"
    try:
        workers = ask(url, {}, headers("prefect", settings))
    except (OSError, ValueError):
        return False
    return any(each["status"] == "ONLINE" for each in workers)
