"""What the stage flows have in common: run one Ray job from within a flow run, visibly."""

import contextlib
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextvars import ContextVar, copy_context
from typing import Any, TypeVar
from uuid import UUID

from prefect import get_run_logger
from prefect.client.orchestration import get_client
from prefect.logging.configuration import setup_logging
from prefect.runtime import flow_run
from prefect.settings import PREFECT_API_URL
from tqdm import tqdm

from flows.cluster import submission
from flows.cluster.connection import Cluster
from flows.cluster.protocol import JobContext, Progress, check_store
from flows.home.settings import Settings, absolute_url
from flows.pages import artifacts
from flows.stages.command_line import command_line
from pairflow.errors import PairFlowError
from pairflow.spec import Spec

R = TypeVar("R", bound=Spec)
_SECONDS_BETWEEN_LOG_LINES = 30.0  # for those who see neither bar nor artifact
_shared_cluster: ContextVar[Cluster | None] = ContextVar("shared_cluster", default=None)
_parent_run: ContextVar[str | None] = ContextVar("parent_run", default=None)
_num_sharing: ContextVar[int] = ContextVar("num_sharing", default=1)
_stopped: ContextVar[threading.Event | None] = ContextVar("stopped", default=None)
_job_url: ContextVar[str | None] = ContextVar("job_url", default=None)


@contextlib.contextmanager
def shared_cluster(store: str | None = None) -> Iterator[Cluster]:
    """One Ray cluster for every stage within this block, and within those around it.

    Raises:
        SpecError: a setting does not fit.
        StoreError: the store cannot be written; found out before anything is started.
    """
    outer = _shared_cluster.get()
    if outer is not None:
        yield outer
        return
    settings = Settings.read()
    if store is not None:
        settings = settings.model_copy(update={"store_url": absolute_url(store)})
    check_store(settings.store)
    with Cluster(settings) as cluster:
        token = _shared_cluster.set(cluster)
        try:
            yield cluster
        finally:
            _shared_cluster.reset(token)


@contextlib.contextmanager
def nested_under(mlflow_run_id: str) -> Iterator[None]:
    """MLflow runs that jobs within this block begin are children of this run."""
    token = _parent_run.set(mlflow_run_id)
    try:
        yield
    finally:
        _parent_run.reset(token)


def side_by_side(*runs: Callable[[], R], at_most: int | None = None) -> tuple[R, ...]:
    """Calls stage flows at the same time, their jobs sharing a machine's cores evenly; their results in order.

    When one fails, or Ctrl-C or a cancellation arrives, the jobs of the others are stopped: their checkpoints stay.

    Args:
        runs: what to call.
        at_most: how many at a time; all by default.
    """
    if not runs:
        return ()
    num_sharing = min(len(runs), at_most or len(runs))
    stopped = threading.Event()
    tokens = _num_sharing.set(num_sharing), _stopped.set(stopped)
    try:
        with ThreadPoolExecutor(num_sharing) as pool:
            # Each thread sees the flow run, the cluster and the MLflow parent of this one.
            futures = [pool.submit(copy_context().run, run) for run in runs]
            try:
                wait(futures, return_when=FIRST_EXCEPTION)
            finally:
                stopped.set()  # those that still run, as one failed or this thread was interrupted
                for future in futures:
                    future.cancel()  # those that have not begun
            for future in futures:
                if future.done() and not future.cancelled() and (error := future.exception()) is not None:
                    raise error
            return tuple(future.result() for future in futures)
    finally:
        _num_sharing.reset(tokens[0])
        _stopped.reset(tokens[1])


def run_job(
    name: str,
    parameters: Spec,
    result_type: type[R],
    *,
    store: str | None,
    on_gpu: bool = False,
    by_workers: bool = False,
) -> R:
    """Runs `flows.jobs.<name>` for the current flow run: its log in ours, its progress as artifact and bar.

    The submission id comes from the flow run and its attempt, and the job carries the flow run's id, so that a retry
    finds a job that is still at work.

    Args:
        name: of the job.
        parameters: its request.
        result_type: of its result.
        store: of the flow's parameters.
        on_gpu: it uses the GPUs of a job.
        by_workers: if there are several workers they use these GPUs, and not the job itself.

    Raises:
        JobFailedError: the job failed, with its own error.
    """
    logger = get_run_logger()
    submission_id = f"{name}-{flow_run.id}-{flow_run.run_count}"
    artifact, bar = artifacts.ProgressArtifact(), _TerminalBar()

    def on_log(level: int, message: str) -> None:
        with bar.aside():
            logger.log(level, message)

    logged = time.monotonic()

    def on_progress(progress: Progress) -> None:
        nonlocal logged
        bar.show(progress)
        artifact.show(progress)
        if time.monotonic() - logged > _SECONDS_BETWEEN_LOG_LINES:
            logged = time.monotonic()
            on_log(logging.INFO, str(progress))

    with shared_cluster(store) as cluster, contextlib.closing(bar):
        alone = not (by_workers and cluster.settings.train_workers > 1)
        num_gpus = (cluster.job_settings.gpus_per_job or 0) if on_gpu and alone else 0
        context = job_context(submission_id, command=command_line(name, parameters), cluster=cluster)
        job = submission.submit(cluster, f"flows.jobs.{name}", submission_id, parameters, context, num_gpus=num_gpus)
        pages = cluster.settings.ray_pages
        url = f"{pages or job.client.get_address()}/#/jobs/{job.submission_id}"
        logger.info("Ray job %s", url)
        # A cluster that ends with this command has no page to link to.
        _job_url.set(None if pages is None else url)
        return submission.follow(job, result_type, on_log=on_log, on_progress=on_progress, stopped=_stopped.get())


def describe_run(*, name: str | None = None, tags: Sequence[str] = ()) -> None:
    """Gives the current flow run a name that tells more, or adds tags, by which runs are found in Prefect's UI."""
    with get_client(sync_client=True) as client:
        known = client.read_flow_run(UUID(str(flow_run.id)))
        client.update_flow_run(known.id, name=name or known.name, tags=sorted({"pairflow", *known.tags, *tags}))


def links(mlflow_run_id: str | None) -> dict[str, str | None]:
    """Where to read on about a stage: its run in MLflow, and the Ray job that this flow ran last."""
    job = _job_url.get()
    return {
        "MLflow run": artifacts.mlflow_link(mlflow_run_id),
        "Ray job": None if job is None else f"[{job.rpartition('/')[2]}]({job})",
    }


def short_count(number: int) -> str:
    """285, 133k or 1.2M: as many figures as a name has room for."""
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if number >= 10 * size:
            return f"{number / size:.0f}{unit}"
        if number >= size:
            return f"{number / size:.1f}{unit}"
    return str(number)


def job_context(submission_id: str | None, *, command: str | None = None, cluster: Cluster | None = None) -> JobContext:
    """What the current flow run tells its jobs about itself.

    Args:
        submission_id: of the Ray job, if it is about one.
        command: that asks for the same again.
        cluster: that the job goes to; one that ends with this command has no page to link to.
    """
    dashboard = None if cluster is None else cluster.settings.ray_pages
    # An embedded server's address dies with this process: no link is better than a dead one.
    served = PREFECT_API_URL.value() is not None
    return JobContext(
        submission_id=submission_id,
        flow_run_id=str(flow_run.id),
        root_flow_run_id=str(flow_run.root_flow_run_id),
        flow_run_url=flow_run.ui_url if served else None,
        ray_job_url=f"{dashboard}/#/jobs/{submission_id}" if dashboard and submission_id else None,
        command=command,
        parent_mlflow_run_id=_parent_run.get(),
        num_sharing=_num_sharing.get(),
    )


class _TerminalBar:
    """A tqdm bar that follows a job's progress; silent where standard error is no terminal."""

    def __init__(self) -> None:
        self._bar: tqdm[Any] | None = None
        self._description = ""

    def show(self, progress: Progress) -> None:
        if self._bar is None or self._description != progress.description:
            self.close()
            self._description = progress.description
            self._bar = tqdm(
                total=progress.total, desc=progress.description, unit=progress.unit, disable=None, file=sys.stderr
            )
        self._bar.update(progress.done - self._bar.n)

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Takes the bar off the screen while something else is written there."""
        with tqdm.external_write_mode(file=sys.stderr):
            yield

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def log_expected_errors_without_traceback() -> None:
    """Keeps Prefect from printing a traceback, on this terminal, of an error whose message says all.

    The flow run's page still has the whole record.
    """
    setup_logging()  # else the handlers come with the first flow run
    for handler in logging.getLogger().handlers:
        handler.addFilter(_says_more_than_the_error)


def _says_more_than_the_error(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, (PairFlowError, KeyboardInterrupt)):
        return False
    return not (record.levelno >= logging.ERROR and str(record.msg).startswith("Finished in state"))
