"""supervisord over the programs of a home: its configuration, its start and its end, and what it knows.

It listens on a Unix socket in a folder that only its owner may enter, and nowhere else. Whether it lives is asked of
the process table: a socket can be taken away, and nobody must take that for the end of the service.
"""

import contextlib
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any
from xmlrpc.client import Fault, ServerProxy

import psutil

from flows.home.addresses import service_folder
from flows.home.private import private_folder
from flows.service.programs import PROGRAM_NAMES, SERVER_NAMES, ProgramName
from flows.service.remains import end_all, program_mark, supervisor_of
from flows.service.sockets import choose_socket, runtime_folder, supervisor_socket
from pairflow.errors import PairFlowError

_ANSWER_TIMEOUT_S = 120  # it answers within a second, but on a busy machine
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
    """The supervisor of one home, whether it runs or not."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.folder = service_folder(home)
        self.runtime = runtime_folder(home)

    def log_path(self, name: str) -> Path:
        """Where the output of a program, or of the supervisor itself, is kept."""
        return self.folder / "logs" / f"{name}.log"

    def start(self, environment: dict[str, str]) -> "subprocess.Popen[bytes]":
        """Starts supervisord, which starts the servers, and waits until it answers.

        Raises:
            ServiceError: it does not start.
            SpecError: the folder for its socket belongs to somebody else.
        """
        for folder in (self.folder, self.log_path("supervisor").parent, self.runtime):
            private_folder(folder)
        configuration = self.folder / "supervisord.conf"
        configuration.write_text(self._configuration(choose_socket(self.home)), encoding="utf-8")
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
            with contextlib.suppress(ServiceError), self._client() as client:
                client.supervisor.getPID()
                return process
            time.sleep(0.1)
        process.terminate()
        process.wait(_STOP_TIMEOUT_S)
        raise ServiceError(f"the supervisor did not start: {self.log_tail('supervisor')}")

    def pid(self) -> int | None:
        """Its process id, if it runs."""
        process = supervisor_of(self.home)
        return None if process is None else int(process.pid)

    def states(self) -> list[ProgramState]:
        """What it knows of its programs; where it cannot be asked, as its socket was taken away, what is seen of them.

        Raises:
            ServiceError: it does not run.
        """
        try:
            with self._client() as client:
                found = {each["name"]: each for each in client.supervisor.getAllProcessInfo()}
        except ServiceError:
            if (process := supervisor_of(self.home)) is None:
                raise
            return _states_of_children(process)
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
        remains, alive = end_all(self.home)
        if alive:
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

        at = supervisor_socket(self.home)
        transport = SupervisorTransport(None, None, f"unix://{at}")
        try:
            yield ServerProxy("http://127.0.0.1", transport=transport)
        except Fault as fault:
            raise ServiceError(
                f"the supervisor answers {fault.faultString}; `pairflow logs supervisor` has more"
            ) from None
        except (OSError, HTTPException) as error:
            raise ServiceError(f"no supervisor answers at {at}: {error}") from None
        finally:
            transport.close()

    def _configuration(self, listens_at: Path) -> str:
        sections = [
            _section("unix_http_server", file=listens_at, chmod="0600"),
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
            words = (sys.executable, "-m", "flows.service.programs", name)
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


def _states_of_children(supervisor: psutil.Process) -> list[ProgramState]:
    found = {name: ProgramState(name, "STOPPED", 0, 0) for name in PROGRAM_NAMES}
    for child in supervisor.children():
        with contextlib.suppress(psutil.Error):
            environment, seconds = child.environ(), int(time.time() - child.create_time())
            for name in PROGRAM_NAMES:
                if program_mark(name) in environment:
                    found[name] = ProgramState(name, "RUNNING", child.pid, seconds)
    return list(found.values())
