"""supervisord over the programs of a home: its configuration, its start and its end, and what it knows.

It listens on a Unix socket in a folder that only its owner may enter, and nowhere else.
"""

import contextlib
import hashlib
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any
from xmlrpc.client import Fault, ServerProxy

import psutil

from flows.home.addresses import service_folder
from flows.service.programs import PROGRAM_NAMES, SERVER_NAMES, ProgramName
from flows.service.remains import end, processes_of
from pairflow.errors import PairFlowError

_ANSWER_TIMEOUT_S = 15
_STOP_TIMEOUT_S = 90
# What ends first has the highest number: flow runs stop their jobs while Ray and Prefect can still be told.
_PRIORITIES: dict[ProgramName, int] = {"prefect": 1, "mlflow": 2, "ray": 3, "reconciler": 4, "worker": 5, "watch": 6}


class ServiceError(PairFlowError):
    """The servers of `pairflow up` cannot be started, asked or stopped."""


@dataclass(frozen=True)
class ProgramState:
    """What the supervisor knows of one program."""

    name: ProgramName
    state: str
    """RUNNING, STARTING, STOPPED, BACKOFF (it ended and is started again), FATAL (that was given up), ..."""
    pid: int
    seconds: int
    """Since its start."""


class Supervisor:
    """The supervisor of one home, whether it runs or not.

    Raises:
        ServiceError: the folder for its socket belongs to somebody else.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        self.folder = service_folder(home)
        # Paths of Unix sockets end at 107 bytes, so they cannot lie under an arbitrarily deep home.
        name = f"pairflow-{os.getuid()}-{hashlib.sha256(str(home).encode()).hexdigest()[:8]}"
        self.runtime = _private_folder(Path(tempfile.gettempdir()) / name)
        self._socket = self.runtime / "supervisor.sock"

    def log_path(self, name: str) -> Path:
        """Where the output of a program, or of the supervisor itself, is kept."""
        return self.folder / "logs" / f"{name}.log"

    def start(self, environment: dict[str, str]) -> "subprocess.Popen[bytes]":
        """Starts supervisord, which starts the servers, and waits until it answers.

        Raises:
            ServiceError: it does not start.
        """
        self.log_path("supervisor").parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        configuration = self.folder / "supervisord.conf"
        configuration.write_text(self._configuration(), encoding="utf-8")
        with self.log_path("supervisor").open("ab") as log:
            process = subprocess.Popen(  # noqa: S603 - our own arguments, no shell
                [sys.executable, "-m", "supervisor.supervisord", "--configuration", str(configuration)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.runtime,
                env=environment,
                start_new_session=True,  # Ctrl-C belongs to `pairflow up`, which ends all in order
            )
        deadline = time.monotonic() + _ANSWER_TIMEOUT_S
        while process.poll() is None and time.monotonic() < deadline:
            if self.pid() is not None:
                return process
            time.sleep(0.1)
        process.terminate()
        raise ServiceError(f"the supervisor did not start: {self.log_tail('supervisor')}")

    def pid(self) -> int | None:
        """Its process id, if it runs and answers."""
        try:
            with self._client() as client:
                return int(client.supervisor.getPID())
        except ServiceError:
            return None

    def states(self) -> list[ProgramState]:
        """What it knows of its programs.

        Raises:
            ServiceError: it does not run.
        """
        with self._client() as client:
            found = {each["name"]: each for each in client.supervisor.getAllProcessInfo()}
        return [
            ProgramState(
                name=name,
                state=found[name]["statename"],
                pid=found[name]["pid"],
                seconds=found[name]["now"] - found[name]["start"],
            )
            for name in PROGRAM_NAMES
        ]

    def start_program(self, name: ProgramName) -> None:
        """Starts a program that does not run yet.

        Raises:
            ServiceError: it cannot be started.
        """
        with self._client() as client:
            client.supervisor.startProcess(name, False)

    def stop(self) -> bool:
        """Ends the programs in their order, and supervisord; then whatever of theirs is still there.

        Returns:
            Whether there was anything to end.

        Raises:
            ServiceError: something could not be ended.
        """
        pid = self.pid()
        if pid is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                process = psutil.Process(pid)
                process.terminate()
                try:
                    process.wait(_STOP_TIMEOUT_S)
                except psutil.TimeoutExpired:
                    process.kill()
        return bool(self.end_remains()) or pid is not None

    def end_remains(self) -> list[int]:
        """Ends processes of this home that no supervisor watches any more; their ids.

        Raises:
            ServiceError: one of them does not end.
        """
        remains = processes_of(self.home)
        if alive := end(remains):
            raise ServiceError(f"processes {[each.pid for each in alive]} of an earlier `pairflow up` do not end")
        return [each.pid for each in remains]

    def log_tail(self, name: str, num_lines: int = 5) -> str:
        """The last lines of a log, in one."""
        return " / ".join(self.log_lines(name, num_lines)) or "it left no log"

    def log_lines(self, name: str, num_lines: int) -> list[str]:
        """The last lines of a log."""
        path = self.log_path(name)
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
        return [line for line in lines if line.strip()][-num_lines:]

    @contextlib.contextmanager
    def _client(self) -> Iterator[Any]:
        from supervisor.xmlrpc import SupervisorTransport

        transport = SupervisorTransport(None, None, f"unix://{self._socket}")
        try:
            yield ServerProxy("http://127.0.0.1", transport=transport)
        except Fault as fault:
            raise ServiceError(
                f"the supervisor answers {fault.faultString}; `pairflow logs supervisor` has more"
            ) from None
        except (OSError, HTTPException) as error:
            raise ServiceError(f"no supervisor answers at {self._socket}: {error}") from None
        finally:
            transport.close()

    def _configuration(self) -> str:
        sections = [
            _section("unix_http_server", file=self._socket, chmod="0600"),
            _section(
                "supervisord",
                nodaemon="true",
                logfile=self.log_path("supervisord"),
                logfile_maxbytes="5MB",
                logfile_backups=1,
                pidfile=self.runtime / "supervisord.pid",
            ),
            # Without this section supervisord knows no methods that could be called.
            "[rpcinterface:supervisor]\n"
            "supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface\n",
        ]
        for name in PROGRAM_NAMES:
            words = (sys.executable, "-m", "flows.service.programs", name, str(self.runtime))
            sections.append(
                _section(
                    f"program:{name}",
                    command=" ".join(map(shlex.quote, words)),
                    directory=self.runtime,  # jobs start here: `python -m` must not find modules of elsewhere
                    autostart=str(name in SERVER_NAMES).lower(),
                    autorestart="true",
                    startsecs=2,
                    startretries=5,
                    priority=_PRIORITIES[name],
                    stopwaitsecs=20,
                    # `ray start` ends its processes in order if it alone is asked; else it waits for them in vain.
                    stopasgroup=str(name != "ray").lower(),
                    killasgroup="true",
                    redirect_stderr="true",
                    stdout_logfile=self.log_path(name),
                    stdout_logfile_maxbytes="10MB",
                    stdout_logfile_backups=2,
                )
            )
        return "\n".join(sections)


def _section(name: str, **values: object) -> str:
    """A section of an INI file in which % begins an expansion."""
    lines = [f"{key} = {str(value).replace('%', '%%')}" for key, value in values.items()]
    return "\n".join([f"[{name}]", *lines, ""])


def _private_folder(path: Path) -> Path:
    path.mkdir(mode=0o700, exist_ok=True)
    status = path.lstat()
    if status.st_uid != os.getuid() or status.st_mode & 0o077 or not path.is_dir() or path.is_symlink():
        raise ServiceError(
            f"{path} must be a folder that only you may enter; remove it, or set TMPDIR to another place"
        )
    return path
