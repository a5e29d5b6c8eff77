"""What `pairflow up --database` does at a PostgreSQL server before anything starts: it makes and takes databases."""

import os
import socket
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from flows.home.addresses import service_folder
from flows.service.database import PASSWORD_VARIABLE, Database
from flows.service.supervision import ServiceError

if TYPE_CHECKING:
    from psycopg import Connection

_OLDEST = 14  # Prefect's documentation asks for 14.9 or newer
_TIMEOUT_S = 10


def prepare(database: Database, home: Path, say: Callable[[str], None]) -> None:
    """Makes both databases if there are none, and takes them for this home; nothing is started before.

    Raises:
        ServiceError: the server, a database or a right is missing, or another home has taken them.
    """
    try:
        import psycopg
    except ImportError:
        raise ServiceError("PostgreSQL wants the package psycopg; install it with pip install '.[postgres]'") from None
    for name, make_ready in ((database.prefect_name, _make_extension), (database.mlflow_name, None)):
        with _opened(database, name, say) as connection:
            try:
                _check(connection)
                if make_ready is not None:
                    make_ready(connection)
                    _claim(connection, home)
            except psycopg.Error as error:
                raise ServiceError(
                    f"the database {name} of {database} cannot be used: {_first_line(error)}; its owner, or who may "
                    f"create in it, must be {database.user!r}"
                ) from None


@contextmanager
def _opened(database: Database, name: str, say: Callable[[str], None]) -> "Iterator[Connection]":
    """A connection to the database of this name, which is made if there is none."""
    import psycopg

    try:
        connection = _connect(database, name)
    except psycopg.OperationalError as error:
        try:
            made = _create_missing(database, name)
        except psycopg.OperationalError:  # what the first attempt said is nearer to the point
            made = False
        if not made:
            raise ServiceError(_explain(database, error)) from None
        say(f"made the database {name} on {database.host}")
        connection = _connect(database, name)
    with connection:
        yield connection


def _connect(database: Database, name: str, *, autocommit: bool = False) -> "Connection":
    import psycopg

    return psycopg.connect(
        host=database.host,
        port=database.port,
        user=database.user,
        password=database.password,  # None: PGPASSWORD or ~/.pgpass
        dbname=name,
        connect_timeout=_TIMEOUT_S,
        application_name="pairflow up",
        autocommit=autocommit,
    )


def _create_missing(database: Database, name: str) -> bool:
    """Creates a database; False if it exists, so that something else is wrong."""
    import psycopg
    from psycopg import sql

    with _connect(database, "postgres", autocommit=True) as connection:
        if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone():
            return False
        statement = sql.SQL("CREATE DATABASE {} OWNER {}").format(sql.Identifier(name), sql.Identifier(database.user))
        try:
            connection.execute(statement)
        except psycopg.errors.DuplicateDatabase:  # another was quicker
            return True
        except psycopg.Error as error:
            text = statement.as_string(connection)
            raise ServiceError(
                f"there is no database {name} on {database.host}:{database.port}, and it cannot be made: "
                f"{_first_line(error)}; let an administrator run: {text};"
            ) from None
    return True


def _explain(database: Database, error: Exception) -> str:
    text = _first_line(error)
    if "password" in text:
        remedy = f"set {PASSWORD_VARIABLE}, or write a line to ~/.pgpass, which only you may read"
    elif "refused" in text or "timeout" in text or "translate" in text:
        remedy = "start the server, or correct host and port"
    else:
        remedy = "correct --database, or ask the server's administrator"
    return f"PostgreSQL at {database} lets nobody in: {text}; {remedy}"


def _check(connection: "Connection") -> None:
    if connection.info.server_version < _OLDEST * 10_000:
        version = connection.info.parameter_status("server_version")
        raise ServiceError(f"PostgreSQL {version} is too old; Prefect wants {_OLDEST} or newer")
    allowed = connection.execute("SELECT has_schema_privilege('public', 'CREATE')").fetchone()
    if allowed is None or not allowed[0]:
        name, user = connection.info.dbname, connection.info.user
        raise ServiceError(
            f"{user!r} may not make tables in the database {name}; let an administrator run there: "
            f'GRANT CREATE ON SCHEMA public TO "{user}";'
        )


def _make_extension(connection: "Connection") -> None:
    connection.execute("CREATE EXTENSION IF NOT EXISTS pg_trgm")  # Prefect's searches by name


def _claim(connection: "Connection", home: Path) -> None:
    """Takes the databases for this home, whose files the history speaks of."""
    identity = _identity(home)
    connection.execute("SELECT pg_advisory_xact_lock(hashtext('pairflow.home'))")
    connection.execute("CREATE SCHEMA IF NOT EXISTS pairflow")
    connection.execute("CREATE TABLE IF NOT EXISTS pairflow.home (id text PRIMARY KEY, place text NOT NULL)")
    row = connection.execute("SELECT id, place FROM pairflow.home").fetchone()
    if row is None:
        place = f"{home} on {socket.gethostname()}"
        connection.execute("INSERT INTO pairflow.home VALUES (%s, %s)", [identity, place])
    elif row[0] != identity:
        raise ServiceError(
            f"the database {connection.info.dbname} is that of another home, {row[1]}; choose another name in "
            "--database or, if that home is gone, run there: DROP SCHEMA pairflow CASCADE;"
        )


def _identity(home: Path) -> str:
    """A name of this home that stays when it is moved."""
    path = service_folder(home) / "identity"
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        return path.read_text(encoding="ascii")
    except FileNotFoundError:
        draft = path.with_suffix(".draft")
        draft.write_text(uuid.uuid4().hex, encoding="ascii")
        os.replace(draft, path)
        return path.read_text(encoding="ascii")


def _first_line(error: Exception) -> str:
    """What the server says, without the lines on each address that was tried."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
