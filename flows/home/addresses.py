"""Where the servers of `pairflow up` are: a small file under the home, for every other command of this home."""

import os
from pathlib import Path
from urllib.parse import urlsplit

import psutil
from pydantic import BaseModel, ConfigDict, ValidationError

OWNER_VARIABLE = "PAIRFLOW_SERVICE_OF"
"""Set to the home for every process under the supervisor; so they are told from those of another home."""


class Servers(BaseModel):
    """Addresses of running servers, and the supervisor that runs them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prefect_url: str
    mlflow_url: str
    ray_url: str
    supervisor_pid: int
    supervisor_started: float
    """Seconds since the epoch: a process id is used again after a while, with another start time."""
    auth: bool = True
    """Whether Prefect and MLflow ask for the token."""

    @property
    def prefect_api_url(self) -> str:
        """What Prefect's clients want."""
        return f"{self.prefect_url}/api"

    def has_prefect_at(self, api_url: str) -> bool:
        """Whether that is the address of this Prefect."""
        return _same_server(api_url, self.prefect_url)

    def has_mlflow_at(self, uri: str) -> bool:
        """Whether that is the address of this MLflow."""
        return _same_server(uri, self.mlflow_url)

    @property
    def ports(self) -> dict[str, int]:
        """The ports in use, by the names of their settings."""
        at = {"prefect": self.prefect_url, "mlflow": self.mlflow_url, "ray": self.ray_url}
        return {f"{name}_port": int(url.rpartition(":")[2]) for name, url in at.items()}


def service_folder(home: Path) -> Path:
    """Logs, configuration and addresses of the servers."""
    return home / "service"


def running_servers(home: Path) -> Servers | None:
    """The servers of this home; None if none run, or those of the file are gone."""
    try:
        servers = Servers.model_validate_json(_path(home).read_bytes())
        supervisor = psutil.Process(servers.supervisor_pid)
        lives = abs(supervisor.create_time() - servers.supervisor_started) < 2
        if not lives:  # that time shifts when the clock is set; the mark stays, but is for its own user to see
            lives = supervisor.environ().get(OWNER_VARIABLE) == str(home)
    except (OSError, ValidationError, psutil.Error):
        return None
    return servers if lives else None


def announce(home: Path, servers: Servers) -> None:
    """Lets the other commands of this home know; readers see the old file or the new one, never half of one."""
    draft = _path(home).with_suffix(".draft")
    draft.write_text(servers.model_dump_json(indent=2), encoding="utf-8")
    os.replace(draft, _path(home))


def withdraw(home: Path) -> None:
    """Takes the file away."""
    _path(home).unlink(missing_ok=True)


def _same_server(url: str, ours: str) -> bool:
    try:
        given, port = urlsplit(url), urlsplit(url).port
    except ValueError:
        return False
    return (given.scheme, port) == ("http", urlsplit(ours).port) and given.hostname in ("127.0.0.1", "localhost")


def _path(home: Path) -> Path:
    return service_folder(home) / "servers.json"
