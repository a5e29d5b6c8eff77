"""Runs a flow for the command line."""

import importlib
import logging
import signal
import sys
from typing import Any

import typer

from flows.home.settings import Settings, prepare_environment
from flows.parameters import FlowParameters
from pairflow.errors import PairFlowError


def run_flow(name: str, parameters: FlowParameters) -> Any:
    """Runs a flow in this process. Ray starts first, since Prefect's server takes as long to come up."""
    prepare_environment(Settings.read())
    flow = getattr(importlib.import_module(f"flows.{name}"), name)
    from flows.stages.surroundings import shared_cluster

    _log_expected_errors_without_traceback()
    try:
        with shared_cluster(parameters.store):
            return flow(parameters)
    except KeyboardInterrupt:
        print("interrupted; what is finished is kept, and the same command goes on from there", file=sys.stderr)
        raise typer.Exit(128 + signal.SIGINT) from None


def _log_expected_errors_without_traceback() -> None:
    """Keeps Prefect from printing a traceback, on this terminal, of an error whose message says all.

    The flow run's page still has the whole record.
    """
    from prefect.logging.configuration import setup_logging

    setup_logging()  # else the handlers come with the first flow run
    for handler in logging.getLogger().handlers:
        handler.addFilter(_says_more_than_the_error)


def _says_more_than_the_error(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, (PairFlowError, KeyboardInterrupt)):
        return False
    return not (record.levelno >= logging.ERROR and str(record.msg).startswith("Finished in state"))
