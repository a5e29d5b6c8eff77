"""Run one Ray job from within a flow run, visibly: the one place that does."""

import contextlib
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from prefect import get_run_logger
from prefect.runtime import flow_run
from tqdm import tqdm

from flows.cluster import submission
from flows.cluster.protocol import PROGRESS, Progress
from flows.home.settings import Settings
from flows.home.token import SIGN_IN
from flows.pages import artifacts
from flows.requests import Request
from flows.results import Found
from flows.stages.flow_run import is_being_cancelled, leave_if_suspended, note_suspension
from flows.stages.surroundings import here, job_context, shared_cluster
from pairflow.spec import Spec

R = TypeVar("R", bound=Spec)
Q = TypeVar("Q", bound=Request)
_SECONDS_BETWEEN_LOG_LINES = 30.0  # for those who see neither bar nor artifact


@dataclass(frozen=True)
class Ran(Generic[R]):
    """A job that has ended well.

    Attributes:
        result: what it handed back.
        page: a link to it on Ray's dashboard, in markdown; None where that is gone with its cluster, or no job was run.
    """

    result: R
    page: str | None


def run_job(
    name: str,
    request: Q,
    result_type: type[R],
    *,
    store: str | None,
    find: Callable[[Q, Settings], Found[R] | None] | None = None,
    command: str | None = None,
    preset: str | None = None,
    on_gpu: bool = False,
    by_workers: bool = False,
) -> "Ran[R]":
    """Runs `flows.jobs.<name>` for the current flow run: its log in ours, its progress as artifact and bar.

    The submission id comes from the flow run and its attempt, and the job carries the flow run's id, so that a retry
    finds a job that is still at work.

    Args:
        name: of the job.
        request: what it is asked for.
        result_type: of its result.
        store: of the flow's parameters.
        find: what the same request left earlier; where it finds that, no job is run and no cluster is started.
        command: the command line that asks the flow for the same again.
        preset: that the flow's settings began with, if any.
        on_gpu: it uses the GPUs of a job.
        by_workers: if there are several workers they use these GPUs, and not the job itself.

    Raises:
        JobFailedError: the job failed, with its own error.
    """
    logger = get_run_logger()
    if find is not None and (found := find(request, Settings.read().at_store(store))) is not None:
        logger.info("%s", found.data)
        for note in found.notes:
            logger.warning("%s", note)
        logger.info("%s", found.sentence)
        return Ran(found.result, None)
    attempt = f"{name}-{flow_run.id}-{flow_run.run_count}"
    artifact, bar = artifacts.ProgressArtifact(), _TerminalBar(drawn=here().bars)

    def on_log(level: int, message: str) -> None:
        logger.log(level, "%s", message)

    logged = time.monotonic()

    def on_progress(progress: Progress) -> None:
        nonlocal logged
        bar.show(progress)
        artifact.show(progress)
        if time.monotonic() - logged > _SECONDS_BETWEEN_LOG_LINES:
            logged = time.monotonic()
            logger.info("%s", progress, extra={PROGRESS: True})

    with shared_cluster(store) as cluster, contextlib.closing(bar):
        alone = not (by_workers and cluster.settings.train_workers > 1)
        num_gpus = (cluster.job_settings.gpus_per_job or 0) if on_gpu and alone else 0
        submission_id = submission.unused_id(cluster.client, attempt)
        context = job_context(submission_id, command=command, preset=preset, cluster=cluster)
        job = submission.submit(cluster, f"flows.jobs.{name}", submission_id, request, context, num_gpus=num_gpus)
        pages = cluster.settings.ray_pages  # a cluster that ends with this command has none to link to
        page = None if pages is None else f"{pages}/#/jobs/{job.submission_id}"
        if page is None:
            logger.debug("Running entrypoint for job %s", job.submission_id)
        else:
            logger.info("Ray job %s (%s)", page, SIGN_IN)
        try:
            result = submission.follow(
                job,
                result_type,
                on_log=on_log,
                on_progress=on_progress,
                stopped=here().stopped,
                leave=leave_if_suspended,
                sees_its_end=lambda: not is_being_cancelled(),
            )
        except BaseException:
            note_suspension()  # last: a heartbeat after it would be taken for one of a run at work
            raise
        return Ran(result, None if page is None else f"[job on Ray's dashboard]({page}), {SIGN_IN}")


class _TerminalBar:
    """A tqdm bar that follows a job's progress; silent where standard error is no terminal."""

    def __init__(self, *, drawn: bool) -> None:
        self._disable = None if drawn else True  # None: only where there is a terminal
        self._bar: tqdm[Any] | None = None
        self._description = ""

    def show(self, progress: Progress) -> None:
        if self._bar is None or self._description != progress.description:
            self.close()
            self._description = progress.description
            self._bar = tqdm(
                total=progress.total,
                desc=progress.description,
                unit=f" {progress.unit}",
                disable=self._disable,
                dynamic_ncols=True,
                leave=False,  # the job's own lines say how it ended
                file=sys.stderr,
            )
        self._bar.update(progress.done - self._bar.n)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
