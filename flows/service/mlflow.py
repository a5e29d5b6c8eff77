"""MLflow's server for who holds this home's token, on a whole database: `python -m flows.service.mlflow server …`.

MLflow has an application of its own for this, basic-auth, and it is not used here. It hashes the password for every
request: on two busy cores logging a metric took 560 ms instead of 27, and eight clients had 1 request a second instead
of 71 (58 ms and 56 with its cache of passwords, that minute). It wants a second database, of users and of who may do
what with which run, which has to be kept in step with the first, and leaves /health, files of the pages and server-info
open. There is one user here, whose token is compared, and `Guard` stands before everything that MLflow serves.

MLflow names its application to uvicorn on the command line, and takes the name of another only from an installed
package. So it is put in its place where that command line is made; `up` asks the server without a token, and does not
start where it is open all the same.

A database in SQLite is made as commands make theirs, whole, since it is the same file. That is MLflow's own doing and
of no use to anybody else, so this is where the service knows of `flows.lineage`.
"""

import contextlib
import runpy
import sqlite3
import sys
from pathlib import Path
from typing import Any

from mlflow import server

from flows.home.places import sqlite_path
from flows.home.settings import Settings
from flows.home.token import access_token, read_token
from flows.lineage.database import make_whole
from flows.service.guard import Guard

_THEIRS = "mlflow.server.fastapi_app:app"
_OURS = "flows.service.mlflow:guarded"


def guarded() -> Guard:
    """What uvicorn serves."""
    from mlflow.server.fastapi_app import app

    return Guard(app, read_token(access_token(Settings.read().home)))


def guard_it() -> None:
    """Has the server that this process starts serve `guarded`."""
    build = server._build_uvicorn_command

    def build_guarded(*arguments: Any, **options: Any) -> list[str]:
        command: list[str] = build(*arguments, **options)
        command[command.index(_THEIRS)] = _OURS
        return [*command, "--factory"]

    server._build_uvicorn_command = build_guarded


def prepare(database: Path, settings: Settings) -> None:
    """Makes a SQLite file ready for many runs at once: whole, and with a log that lets who reads wait for no writer."""
    make_whole(database, settings.home / "mlflow" / "artifacts")
    with contextlib.closing(sqlite3.connect(database, timeout=60)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")  # the file remembers it


def main() -> None:
    """Becomes the command `mlflow`, with the arguments of this one."""
    settings = Settings.read()
    backend = sys.argv[sys.argv.index("--backend-store-uri") + 1]
    if (database := sqlite_path(backend)) is not None:
        prepare(database, settings)
    if settings.auth == "on":
        guard_it()
    sys.argv[0] = "mlflow"
    runpy.run_module("mlflow", run_name="__main__")


if __name__ == "__main__":
    main()
