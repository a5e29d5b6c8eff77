"""Runs a flow for the command line."""

import contextlib
import importlib
import logging
import os
import signal
import sys
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from flows.cluster.connection import Cluster
from flows.home.addresses import running_servers
from flows.home.environment import prepare_environment
from flows.home.settings import Settings
from flows.parameters import FlowParameters, PipelineParameters, StudyParameters
from pairflow.errors import JobFailedError

if TYPE_CHECKING:
    from flows.command.terminal_log import Verbosity


def run_flow(name: str, parameters: FlowParameters, *, verbose: bool = False, quiet: bool = False) -> Any:
    """What a flow comes to: found, where all of it is done already; else it runs in this process.

    Then Prefect's server and the first job's process start first, since either takes as long as all else that comes
    before the work.

    Raises:
        PairFlowError: the flow's own; what can be known beforehand is said before anything starts.
        JobFailedError: Prefect's server does not let this process in.
    """
    from flows.command import already
    from flows.command.terminal_log import Verbosity
    from flows.stages import beforehand

    settings = Settings.read()
    prepare_environment(settings)
    beforehand.check(parameters)
    verbosity = Verbosity.VERBOSE if verbose else Verbosity.QUIET if quiet else Verbosity.NORMAL
    if (done := already.answer(name, parameters, settings, verbosity)) is not None:
        return done
    if verbose:
        os.environ.setdefault("PREFECT_LOGGING_LEVEL", "DEBUG")  # read when Prefect is imported
    try:
        with Cluster(settings.at_store(parameters.store)) as cluster:
            cluster.expect(*(f"flows.jobs.{job}" for job in _jobs(name, parameters)))
            return _run(name, parameters, settings, cluster, verbosity)
    except KeyboardInterrupt:
        with contextlib.suppress(OSError):  # a terminal that is closed
            print("interrupted; what is finished is kept, and the same command goes on from there", file=sys.stderr)
        raise typer.Exit(128 + signal.SIGINT) from None


def _jobs(name: str, parameters: FlowParameters) -> tuple[str, ...]:
    """Those of a flow which has all to do, in their order."""
    from flows.requests import Plan

    if isinstance(parameters, PipelineParameters):
        parameters = parameters.study
    if isinstance(parameters, StudyParameters):
        return Plan(parameters).jobs
    return ("survey",) if name == "retrain" else (name,)


def _run(name: str, parameters: FlowParameters, settings: Settings, cluster: Cluster, verbosity: "Verbosity") -> Any:
    """Runs a flow on a cluster; Prefect's server starts while the flow is imported."""
    from flows.command import temporary_prefect

    begun = temporary_prefect.begin(settings)
    flow = getattr(importlib.import_module(f"flows.{name}"), name)
    from httpx import TransportError
    from prefect.exceptions import PrefectHTTPStatusError
    from prefect.settings import PREFECT_API_URL

    from flows.command.terminal_log import Verbosity
    from flows.service.unfinished import end_unfinished, hold_run
    from flows.stages.surroundings import within

    quiet = verbosity is Verbosity.QUIET
    _say_in_short_lines(verbosity)
    _leave_signals_to_us()
    cluster.prepare()
    try:
        with (
            temporary_prefect.temporary_server(settings, begun) as temporary,
            within(cluster=cluster, bars=not quiet, prefect_ends=temporary),
        ):
            if temporary:
                for ended in end_unfinished(settings.home):
                    if not quiet:
                        print(f"ended run '{ended}', whose command was killed", file=sys.stderr)
            if temporary or running_servers(settings.home) is not None:
                flow = flow.with_options(on_running=[_Hold(settings.home, hold_run)])
            return flow(parameters)
    except (RuntimeError, TransportError) as error:
        if isinstance(error, RuntimeError) and not str(error).startswith("Failed to reach API"):
            raise
        given = PREFECT_API_URL.value()  # by now that of a temporary server is gone
        remedy = "run the same again" if given is None else "start it with `pairflow up`, or unset PREFECT_API_URL"
        raise JobFailedError(
            f"Prefect{'' if given is None else f' at {given}'} does not answer ({error or type(error).__name__}); "
            f"{remedy}: what is finished is kept"
        ) from error
    except PrefectHTTPStatusError as error:
        if error.response.status_code != HTTPStatus.UNAUTHORIZED:
            raise
        raise JobFailedError(
            f"Prefect at {os.environ.get('PREFECT_API_URL')} answers 401: it wants a credential; give the one of "
            "its `pairflow up` in PREFECT_API_AUTH_STRING, or unset PREFECT_API_URL to use that of this PAIRFLOW_HOME"
        ) from None


class _Hold:
    """A hook that notes which run is this process's."""

    def __init__(self, home: Path, hold_run: Callable[[Path, Any], None]) -> None:
        self.__name__ = "hold_run"
        self._home, self._hold_run = home, hold_run

    def __call__(self, flow: Any, flow_run: Any, state: Any) -> None:
        self._hold_run(self._home, flow_run.id)


def _leave_signals_to_us() -> None:
    """Keeps Prefect's engine from answering SIGTERM: it would take a second copy of the same signal for another one."""
    import prefect.flow_engine as engine

    vars(engine)["capture_sigterm"] = contextlib.nullcontext


def _say_in_short_lines(verbosity: "Verbosity") -> None:
    """Has Prefect's log written to this terminal in our lines; the flow run's page still has the whole record."""
    from prefect.logging.configuration import setup_logging
    from prefect.logging.handlers import PrefectConsoleHandler

    from flows.command.terminal_log import TerminalHandler

    setup_logging()  # else the handlers come with the first flow run
    root = logging.getLogger()
    for handler in list(root.handlers):
        if isinstance(handler, (PrefectConsoleHandler, TerminalHandler)):
            root.removeHandler(handler)
    root.addHandler(TerminalHandler(verbosity))
