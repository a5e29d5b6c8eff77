"""A real PostgreSQL of Debian's package, on loopback and a free port, for as long as a test session needs it."""

import getpass
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

from ..ports import free_port

ADMINISTRATOR, ADMINISTRATORS_PASSWORD = "administrator", "the administrator's"


@dataclass(frozen=True)
class PostgresServer:
    """A server that runs."""

    port: int

    def execute(self, statement: str, database: str = "postgres") -> list[tuple[object, ...]]:
        """What a statement of the administrator's gives."""
        with psycopg.connect(
            host="127.0.0.1",
            port=self.port,
            user=ADMINISTRATOR,
            password=ADMINISTRATORS_PASSWORD,
            dbname=database,
            autocommit=True,
        ) as connection:
            cursor = connection.execute(statement)
            return [] if cursor.description is None else cursor.fetchall()


def binaries() -> Path | None:
    """The newest installed release's folder of programs."""
    found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    return max(found, key=lambda path: int(path.parent.name), default=None)


@contextmanager
def running(programs: Path) -> Iterator[PostgresServer]:
    """Runs a server in a folder of its own, as another user where this one is root, whom PostgreSQL refuses."""
    user = "postgres" if os.geteuid() == 0 else getpass.getuser()
    folder = Path(tempfile.mkdtemp(prefix="pairflow-postgres-"))
    try:
        entry = pwd.getpwnam(user)
        os.chown(folder, entry.pw_uid, entry.pw_gid)
        yield from _run(programs, folder, user)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run(programs: Path, folder: Path, user: str) -> Iterator[PostgresServer]:
    password, data, log = folder / "password", folder / "data", folder / "log"
    password.write_text(ADMINISTRATORS_PASSWORD)
    password.chmod(0o644)  # the folder is the user's own
    options = ("-A", "scram-sha-256", "--no-sync", "--locale=C.UTF-8", "--encoding=UTF8")
    words = [programs / "initdb", "-D", data, "-U", ADMINISTRATOR, f"--pwfile={password}", *options]
    made = _start(words, user, log)
    if made.wait(120) != 0:
        raise RuntimeError(f"initdb failed: {log.read_text(errors='replace')[-2000:]}")
    port = free_port()
    settings = ["listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off", "max_connections=60"]
    server = _start(
        [programs / "postgres", "-D", data, "-p", str(port), *(word for each in settings for word in ("-c", each))],
        user,
        log,
    )
    try:
        found = PostgresServer(port)
        _wait_for(found, server, log)
        yield found
    finally:
        server.send_signal(signal.SIGINT)  # SIGTERM would wait until the clients have gone
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _start(words: Sequence[object], user: str, log: Path) -> "subprocess.Popen[bytes]":
    as_user = {} if os.geteuid() != 0 else {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []}
    with log.open("ab") as output:
        return subprocess.Popen(
            list(map(str, words)), cwd="/", stdin=subprocess.DEVNULL, stdout=output, stderr=output, **as_user
        )


def _wait_for(server: PostgresServer, process: "subprocess.Popen[bytes]", log: Path, timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline and process.poll() is None:
        try:
            server.execute("SELECT 1")
            return
        except psycopg.OperationalError:
            time.sleep(0.2)
    raise RuntimeError(f"PostgreSQL did not start: {log.read_text(errors='replace')[-2000:]}")
