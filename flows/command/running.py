"""Runs a flow for the command line."""

import importlib
import signal
import sys
from typing import Any

import typer

from flows.home.settings import Settings, prepare_environment
from flows.parameters import FlowParameters


def run_flow(name: str, parameters: FlowParameters) -> Any:
    """Runs a flow in this process. Ray starts first, since Prefect's server takes as long to come up."""
    prepare_environment(Settings.read())
    flow = getattr(importlib.import_module(f"flows.{name}"), name)
    from flows.stages import stage

    stage.log_expected_errors_without_traceback()
    try:
        with stage.shared_cluster(parameters.store):
            return flow(parameters)
    except KeyboardInterrupt:
        print("interrupted; what is finished is kept, and the same command goes on from there", file=sys.stderr)
        raise typer.Exit(128 + signal.SIGINT) from None
