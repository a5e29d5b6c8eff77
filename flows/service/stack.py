"""Starting, joining and ending the servers of one home, in order."""

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime

import psutil

from flows.home.addresses import announce, service_folder, withdraw
from flows.home.locks import only_one
from flows.home.network import set_up_network
from flows.home.places import make_home
from flows.home.private import close_home, private_folder
from flows.home.settings import Settings
from flows.service import health, probes, watch
from flows.service.database import Database, remember
from flows.service.programs import (
    PROGRAM_NAMES,
    SERVER_NAMES,
    ProgramName,
    ray_folder,
    servers_of,
    settings_of,
    shared_environment,
)
from flows.service.remains import supervisor_of
from flows.service.supervision import ServiceError, Supervisor

_READY_TIMEOUT_S = 600  # a program that gives up is noticed at once; a busy machine may be slow
_FIELDS: dict[ProgramName, str] = {
    "prefect": "prefect_port",
    "mlflow": "mlflow_port",
    "ray": "ray_port",
}


@contextlib.contextmanager
def one_at_a_time(settings: Settings, say: Callable[[str], None]) -> Iterator[None]:
    """Waits while another `pairflow up` of this home starts its servers: this one would take them for remains.

    Raises:
        SpecError: PAIRFLOW_HOME cannot be made, or its disk has no locks.
    """
    make_home(settings.home)
    private_folder(service_folder(settings.home))
    told = False
    while True:
        with only_one(service_folder(settings.home), "up", f"process {os.getpid()}") as holder:
            if holder is None:
                yield
                return
        if not told:
            say(f"waiting for another `pairflow up` of this home, {holder}")
            told = True
        time.sleep(0.5)


def start(
    settings: Settings, supervisor: Supervisor, say: Callable[[str], None], database: Database | None = None
) -> None:
    """Starts everything, and returns when it is ready; on any failure nothing is left running.

    Args:
        settings: ports, folders and sizes.
        supervisor: of this home.
        say: is told of what is done.
        database: PostgreSQL for both histories; None for SQLite under the home.

    Raises:
        ServiceError: a port is taken, the database cannot be used, or a program does not start.
        SpecError: a folder for sockets is open to others, or the home another user's.
    """
    if settings.auth == "on" and close_home(settings.home):
        say(f"closed {settings.home} to others, who could read the histories in it (PAIRFLOW_AUTH=off leaves it open)")
    watch.forget(settings.home)
    started = datetime.now(UTC)
    if remains := supervisor.end_remains():
        say(f"ended {len(remains)} process(es) that an earlier `pairflow up` left, which was killed")
    _refuse_taken_ports(_FIELDS, settings)
    environment = shared_environment(settings)
    if database is not None:
        from flows.service.postgres import prepare

        prepare(database, settings.home, say)
        environment |= database.environment()
    shutil.rmtree(ray_folder(supervisor.runtime), ignore_errors=True)
    try:
        os.environ.update(environment)  # for the registration, which uses Prefect's client
        set_up_network()
        supervisor.start(dict(os.environ))
        wait_until_well(["prefect"], settings, supervisor, say)
        _refuse_open("prefect", settings)
        from prefect.client.orchestration import get_client

        from flows.service import resumption
        from flows.service.registration import register
        from flows.service.unfinished import end_unfinished

        with get_client(sync_client=True) as prefect:
            interrupted = resumption.end_interrupted(prefect, started)
        for name in end_unfinished(settings.home):
            say(f"ended run '{name}', whose command was killed")
        names = register(settings, watch_anew=True)
        say(f"registered {', '.join(names)}")
        for name in PROGRAM_NAMES:
            if name not in SERVER_NAMES:
                supervisor.start_program(name)
        wait_until_well([name for name in PROGRAM_NAMES if name != "prefect"], settings, supervisor, say)
        _refuse_open("mlflow", settings)
        _announce(settings, supervisor)
        if database is not None:
            remember(settings.home, database)
        # Last, and not when they were ended: the automation for silent runs has had its say by now.
        with get_client(sync_client=True) as prefect:
            for text in resumption.resume(prefect, interrupted):
                say(text)
    except BaseException:
        stop(settings, supervisor)
        raise


def attach(settings: Settings, supervisor: Supervisor, say: Callable[[str], None]) -> None:
    """Says how the servers are that run already, and lets other commands find them again.

    Raises:
        ServiceError: they do not become well.
    """
    process = supervisor_of(settings.home)
    if process is None:
        raise ServiceError(f"the supervisor has ended: {supervisor.log_tail('supervisor')}")
    say(f"already running for {settings.home}, under process {process.pid}")
    settings = settings.model_copy(update=settings_of(process.environ()))
    _put_back(settings, process.environ(), say)
    wait_until_well(PROGRAM_NAMES, settings, supervisor, lambda _: None)
    _announce(settings, supervisor)


def _put_back(settings: Settings, environment: Mapping[str, str], say: Callable[[str], None]) -> None:
    """Registers anew what people deleted on Prefect's pages, with the settings of the servers that run."""
    try:
        reason = probes.Prefect(settings).gone()
    except (OSError, ValueError):  # a server that does not answer is waited for
        return
    if reason is None:
        return
    say(reason)
    words = [sys.executable, "-m", "flows.service.setup"]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise ServiceError(f"it could not be put right: {last}; `pairflow down`, then `pairflow up`")
    say(done.stdout.strip().splitlines()[-1])


def wait(supervisor: Supervisor) -> None:
    """Returns when the supervisor has ended, as after `pairflow down` in another terminal."""
    pid = supervisor.pid()
    if pid is not None:
        try:
            psutil.Process(pid).wait()
        except psutil.NoSuchProcess:
            return


def stop(settings: Settings, supervisor: Supervisor) -> bool:
    """Ends everything; whether there was anything.

    Raises:
        ServiceError: something could not be ended.
    """
    found = supervisor.stop()
    withdraw(settings.home)
    shutil.rmtree(supervisor.runtime, ignore_errors=True)
    return found


def _announce(settings: Settings, supervisor: Supervisor) -> None:
    pid = supervisor.pid()
    if pid is None:
        raise ServiceError(f"the supervisor has ended: {supervisor.log_tail('supervisor')}")
    announce(settings.home, servers_of(settings, pid, psutil.Process(pid).create_time()))


def _refuse_taken_ports(names: Iterable[ProgramName], settings: Settings) -> None:
    for name in names:
        field = _FIELDS[name]
        port = getattr(settings, field)
        if (holder := health.port_holder(port)) is not None:
            raise ServiceError(
                f"port {port}, for {name}, is taken by {holder}; end that, or choose another with "
                f"PAIRFLOW_{field.upper()}"
            )


def _refuse_open(name: ProgramName, settings: Settings) -> None:
    if settings.auth == "on" and health.lets_anybody_in(name, settings):
        raise ServiceError(
            f"{name} answers who has no token, in the version that is installed here; install that of constraints.txt, "
            "or have PAIRFLOW_AUTH=off, which leaves it open to every user of this machine"
        )


def wait_until_well(
    names: Iterable[ProgramName], settings: Settings, supervisor: Supervisor, say: Callable[[str], None]
) -> None:
    """Returns when all of them answer well.

    Raises:
        ServiceError: one was given up, cannot have its port, or is not well within ten minutes.
    """
    started = time.monotonic()
    waiting = list(names)
    while waiting:
        states = {each.name: each.state for each in supervisor.states()}
        for name in list(waiting):
            if states[name] == "FATAL":
                raise ServiceError(
                    f"{name} does not start: {supervisor.log_tail(name)}; `pairflow logs {name}` has more"
                )
            if states[name] == "RUNNING" and health.is_healthy(name, settings):
                waiting.remove(name)
                say(f"{name} is ready")
            if states[name] == "BACKOFF" and name in _FIELDS:
                # It ended, so whoever listens there is somebody else, who came after the first look.
                _refuse_taken_ports([name], settings)
        if waiting and time.monotonic() - started > _READY_TIMEOUT_S:
            raise ServiceError(
                f"{', '.join(waiting)} not ready after {_READY_TIMEOUT_S} s: {supervisor.log_tail(waiting[0])}"
            )
        if waiting:
            time.sleep(0.5)
