"""What `pairflow up` runs: the command and environment of each program.

Run as a program, `python -m flows.service.programs NAME` becomes the one of that name. The supervisor starts it
that way, so that every start, a restart after a crash too, asks for its free ports anew.
"""

import os
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args
from urllib.parse import urlsplit

from flows.cluster.local import RAY_START, head_command
from flows.home.addresses import OWNER_VARIABLE, Servers
from flows.home.environment import HEARTBEATS, job_environment, prefect_environment
from flows.home.places import sqlite_url
from flows.home.settings import Settings
from flows.home.token import (
    access_token,
    cluster_environment,
    mlflow_credential,
    password_headers,
    prefect_credential,
    prefect_password,
    token_headers,
)
from flows.service.database import PASSWORD_VARIABLE, Database
from flows.service.remains import end_all, program_mark
from flows.service.sockets import runtime_folder
from pairflow.errors import SpecError

WORK_POOL = "pairflow"
DEPLOYMENTS = Path(__file__).with_name("deployments.yaml")
AUTOMATION = "pairflow: end runs that have fallen silent"

ProgramName = Literal["prefect", "mlflow", "ray", "worker", "reconciler", "watch"]
PROGRAM_NAMES: tuple[ProgramName, ...] = get_args(ProgramName)
SERVER_NAMES: tuple[ProgramName, ...] = ("prefect", "mlflow", "ray")
"""What starts first; the others need them."""


@dataclass(frozen=True)
class Command:
    """A command line, and the environment variables that it needs beside those of the supervisor."""

    arguments: tuple[str, ...]
    environment: dict[str, str]


def urls(settings: Settings) -> dict[ProgramName, str]:
    """Addresses of the servers that people open in a browser."""
    return {
        "prefect": f"http://127.0.0.1:{settings.prefect_port}",
        "mlflow": f"http://127.0.0.1:{settings.mlflow_port}",
        "ray": f"http://127.0.0.1:{settings.ray_port}",
    }


def headers(name: ProgramName, settings: Settings) -> dict[str, str]:
    """With which one of these servers lets a request in."""
    token = access_token(settings.home)
    return token_headers(token) if name == "ray" else password_headers(token)


def servers_of(settings: Settings, supervisor_pid: int, supervisor_started: float) -> Servers:
    """The addresses, as other commands of this home want them."""
    at = urls(settings)
    return Servers(
        prefect_url=at["prefect"],
        mlflow_url=at["mlflow"],
        ray_url=at["ray"],
        supervisor_pid=supervisor_pid,
        supervisor_started=supervisor_started,
        auth=settings.auth == "on",
    )


def settings_of(environment: Mapping[str, str]) -> dict[str, object]:
    """How servers run, by their settings' names, as everything under their supervisor knows it."""
    at = {"prefect": "PREFECT_API_URL", "mlflow": "MLFLOW_TRACKING_URI", "ray": "RAY_ADDRESS"}
    ports = {name: urlsplit(environment.get(variable, "")).port for name, variable in at.items()}
    known: dict[str, object] = {f"{name}_port": port for name, port in ports.items() if port is not None}
    retrained = environment.get("PAIRFLOW_RETRAIN_DATASETS", "")
    return known | {"auth": environment.get("PAIRFLOW_AUTH") or "on", "retrain_datasets": retrained}


def shared_environment(settings: Settings) -> dict[str, str]:
    """Environment of everything under the supervisor: the servers find each other, and all are quiet."""
    at, token = urls(settings), access_token(settings.home)
    return {
        **prefect_environment(settings),
        **job_environment(settings),
        **cluster_environment(token),
        **(prefect_credential(token) | mlflow_credential(token) if settings.auth == "on" else {}),
        **HEARTBEATS,
        "PREFECT_API_URL": f"{at['prefect']}/api",
        "MLFLOW_TRACKING_URI": at["mlflow"],
        "RAY_ADDRESS": at["ray"],
        OWNER_VARIABLE: str(settings.home),
        "PYTHONUNBUFFERED": "1",
    }


def ray_folder(runtime: Path) -> Path:
    """Ray's sessions; its socket paths are long, so this lies in the (short) runtime folder."""
    return runtime / "ray"


def _prefect(settings: Settings, runtime: Path) -> Command:
    port = str(settings.prefect_port)
    database = _database(settings)
    # In Prefect's minute between two rounds, a schedule that was just switched on has no runs, and may miss its first.
    every = os.environ.get("PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS", "10")
    environment = {"PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": every}
    if database is not None:
        environment["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = database.prefect_url
    if settings.auth == "on":
        environment["PREFECT_SERVER_API_AUTH_STRING"] = prefect_password(access_token(settings.home))
        environment["PREFECT_SERVER_CORS_ALLOWED_ORIGINS"] = f"http://127.0.0.1:{port},http://localhost:{port}"
    arguments = ("-m", "flows.service.prefect", "server", "start", "--host", "127.0.0.1", "--port", port)
    return Command(arguments, environment)


def _mlflow(settings: Settings, runtime: Path) -> Command:
    folder = settings.home / "mlflow"
    (folder / "artifacts").mkdir(parents=True, exist_ok=True)
    database = _database(settings)
    backend = database.mlflow_url if database else patient_sqlite(folder / "mlflow.db")
    return Command(
        (
            *("-m", "flows.service.mlflow", "server", "--host", "127.0.0.1", "--port", str(settings.mlflow_port)),
            *("--workers", "1", "--backend-store-uri", backend),
            # Files by their own path, not through the server: what it keeps can be read when it does not run.
            *("--no-serve-artifacts", "--default-artifact-root", (folder / "artifacts").as_uri()),
        ),
        {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},  # else ten processes instead of two
    )


def patient_sqlite(path: Path) -> str:
    """URL of a SQLite file with which who writes waits his turn for up to a minute, as Prefect has it for its own.

    By default MLflow's writes fail after five seconds.
    """
    return f"{sqlite_url(path)}?timeout=60"


def _database(settings: Settings) -> Database | None:
    """PostgreSQL, if the histories lie there and not in SQLite under the home."""
    return Database.parse(settings.database_url.get_secret_value()) if settings.database_url else None


def _ray(settings: Settings, runtime: Path) -> Command:
    folder = ray_folder(runtime)
    arguments, environment = head_command(folder, settings.ray_port, object_store_mb=settings.object_store_mb)
    return Command((*RAY_START[1:], *arguments), environment)


def _worker(settings: Settings, runtime: Path) -> Command:
    options = ("--pool", WORK_POOL, "--type", "process", "--name", "this-machine")
    # Prefect's ten seconds between two looks for runs are most of what a short run takes.
    every = os.environ.get("PREFECT_WORKER_QUERY_SECONDS", "3")
    return Command(("-m", "prefect", "worker", "start", *options), {"PREFECT_WORKER_QUERY_SECONDS": every})


def _reconciler(settings: Settings, runtime: Path) -> Command:
    return Command(("-m", "flows.service.reconciler"), {})


def _watch(settings: Settings, runtime: Path) -> Command:
    return Command(("-m", "flows.service.watch"), {})


_COMMANDS: dict[ProgramName, Callable[[Settings, Path], Command]] = {
    "prefect": _prefect,
    "mlflow": _mlflow,
    "ray": _ray,
    "worker": _worker,
    "reconciler": _reconciler,
    "watch": _watch,
}


def command(name: ProgramName, settings: Settings, runtime: Path) -> Command:
    """How the program of this name is run; `runtime` is the supervisor's folder for sockets."""
    return _COMMANDS[name](settings, runtime)


def main(name: str) -> None:
    """Becomes the program of this name."""
    if name not in PROGRAM_NAMES:
        raise SpecError(f"there is no program {name!r}; expected one of {', '.join(PROGRAM_NAMES)}")
    settings = Settings.read()
    mark = program_mark(name)
    if name in SERVER_NAMES:
        # Where the first process alone was killed, the others have the port, and Ray's jobs work on for nobody.
        end_all(settings.home, with_variable=mark)
    made = command(name, settings, runtime_folder(settings.home))
    # A shell that started us in the background had SIGINT ignored, which is inherited.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    environment = os.environ | made.environment | {mark: "1"}
    if name not in ("prefect", "mlflow"):
        for secret in (PASSWORD_VARIABLE, "PAIRFLOW_DATABASE_URL"):  # jobs and flows never speak to the database
            environment.pop(secret, None)
    if name == "ray":
        environment.pop("RAY_ADDRESS", None)  # a head that is told of another one refuses to start
        environment.pop("PREFECT_API_AUTH_STRING", None)  # jobs speak to MLflow alone
    os.execve(sys.executable, [sys.executable, *made.arguments], environment)  # noqa: S606 - our own arguments


if __name__ == "__main__":
    main(sys.argv[1])
