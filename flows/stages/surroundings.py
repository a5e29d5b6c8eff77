"""What stands around a stage: the cluster that its flow started, the MLflow run above it, the jobs beside it."""

import contextlib
import threading
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

from prefect.runtime import flow_run
from prefect.settings import PREFECT_API_URL

from flows.cluster.connection import Cluster
from flows.cluster.protocol import JobContext, check_store
from flows.home.settings import Settings
from flows.stages.flow_run import first_of_process


@dataclass(frozen=True)
class Surroundings:
    """Of a stage, as the flow that called it set them.

    Attributes:
        cluster: that its job goes to; None if it has to find or start one.
        parent_run: id of the MLflow run that its run belongs under.
        parent_experiment: id of that run's experiment.
        parent_command: the command line that asks for that run again.
        num_sharing: jobs that share the machine with its own, itself included.
        stopped: set when one beside it has failed.
        bars: whether its progress is drawn where standard error is a terminal.
        prefect_ends: whether Prefect's server ends with this command, and its pages with it.
    """

    cluster: Cluster | None = None
    parent_run: str | None = None
    parent_experiment: str | None = None
    parent_command: str | None = None
    num_sharing: int = 1
    stopped: threading.Event | None = None
    bars: bool = True
    prefect_ends: bool = False


_here: ContextVar[Surroundings] = ContextVar("surroundings", default=Surroundings())  # noqa: B039 - it is frozen


def here() -> Surroundings:
    """Those of the caller."""
    return _here.get()


@contextlib.contextmanager
def within(**changes: Any) -> Iterator[None]:
    """Changes the surroundings of every stage within this block."""
    token = _here.set(replace(_here.get(), **changes))
    try:
        yield
    finally:
        _here.reset(token)


def nested_under(
    mlflow_run_id: str, experiment_id: str, command: str | None
) -> contextlib.AbstractContextManager[None]:
    """MLflow runs that jobs within this block begin are children of this run, which `command` asks for."""
    return within(parent_run=mlflow_run_id, parent_experiment=experiment_id, parent_command=command)


@contextlib.contextmanager
def shared_cluster(store: str | None = None) -> Iterator[Cluster]:
    """One Ray cluster for every stage within this block, and within those around it.

    Raises:
        SpecError: a setting does not fit.
        StoreError: the store cannot be written; found out before anything is started.
    """
    if (outer := here().cluster) is not None:
        yield outer
        return
    settings = Settings.read().at_store(store)
    check_store(settings.store)
    with Cluster(settings) as cluster, within(cluster=cluster):
        yield cluster


def job_context(
    submission_id: str | None,
    *,
    command: str | None = None,
    preset: str | None = None,
    cluster: Cluster | None = None,
) -> JobContext:
    """What the current flow run tells its jobs about itself.

    Args:
        submission_id: of the Ray job, if it is about one.
        command: that asks for the same again.
        preset: that its settings began with, if any.
        cluster: that the job goes to; one that ends with this command has no page to link to.
    """
    dashboard = None if cluster is None else cluster.settings.ray_pages
    # No link is better than a dead one. (Without a URL Prefect has started a server by itself, for this process.)
    served = PREFECT_API_URL.value() is not None and not here().prefect_ends
    return JobContext(
        submission_id=submission_id,
        flow_run_id=str(flow_run.id),
        root_flow_run_id=str(first_of_process()),
        flow_run_url=flow_run.ui_url if served else None,
        ray_job_url=f"{dashboard}/#/jobs/{submission_id}" if dashboard and submission_id else None,
        command=command,
        preset=preset,
        parent_mlflow_run_id=here().parent_run,
        parent_mlflow_experiment_id=here().parent_experiment,
        parent_command=here().parent_command,
        num_sharing=here().num_sharing,
    )
