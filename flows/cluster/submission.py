"""Submit, follow and cancel Ray jobs: through the Ray Jobs API, or what stands for it on a cluster of one command.

    with Cluster(settings) as cluster:
        job = submit(cluster, "flows.jobs.pair", submission_id, parameters, context)
        result = follow(job, PairResult, on_log=..., on_progress=...)

Nothing in here knows of Prefect: what happens to log lines and progress is the caller's.
"""

import asyncio
import contextlib
import itertools
import logging
import queue
import shlex
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

from flows.cluster.connection import UNREACHABLE, Cluster
from flows.cluster.protocol import JOB_URL_VARIABLE, JobContext, JobFolder, Progress, parse_line
from flows.home.environment import job_environment
from pairflow.errors import JobFailedError
from pairflow.spec import Spec

if TYPE_CHECKING:
    from ray.job_submission import JobStatus, JobSubmissionClient

    from flows.cluster.own_jobs import OwnJobs, Status

R = TypeVar("R", bound=Spec)
_STOP_TIMEOUT_S = 15
_LOST_TIMEOUT_S = 60
_POLL_S = 0.5
_SECONDS_BEFORE_WAITING_IS_SAID = 15.0


@dataclass(frozen=True)
class Job:
    """A job on the cluster."""

    client: "JobSubmissionClient | OwnJobs"
    submission_id: str
    folder: JobFolder
    num_gpus: float = 0


def submit(
    cluster: Cluster,
    module: str,
    submission_id: str,
    parameters: Spec,
    context: JobContext,
    *,
    num_gpus: float = 0,
) -> Job:
    """Submits `python -m module` with its request, or finds it where this flow run has submitted it before.

    A job of the same flow run and module that is still alive is attached to, under whichever id it runs: a retried
    flow run takes up its job instead of starting a second one beside it.

    Raises:
        StoreError: the request cannot be written.
        JobFailedError: the cluster cannot be reached or refuses the job.
    """
    jobs_url = f"{cluster.settings.store.rstrip('/')}/jobs"
    folder = JobFolder(f"{jobs_url}/{submission_id}")
    folder.write_request(parameters, context)
    client = cluster.client
    metadata = {"flow_run_id": context.flow_run_id, "module": module}
    if (alive := _alive(client, metadata)) is not None:
        return Job(client, alive, JobFolder(f"{jobs_url}/{alive}"), num_gpus)
    given = cluster.gives_jobs
    variables = {**job_environment(cluster.job_settings), JOB_URL_VARIABLE: folder.url}
    entrypoint = [sys.executable, "-m", module]
    if given:  # what is left is the driver's alone: its tasks need none of their own, which takes a second for each
        left = (f"{name}={value}" for name, value in variables.items() if given.get(name) != value)
        entrypoint = ["env", *left, *entrypoint]
    try:
        client.submit_job(
            entrypoint=shlex.join(entrypoint),
            submission_id=submission_id,
            metadata=metadata | {"root_flow_run_id": context.root_flow_run_id or context.flow_run_id},
            runtime_env=None if given else {"env_vars": variables},
            # Zero CPUs: the driver mostly waits for its tasks, which ask for their own.
            entrypoint_num_cpus=0,
            entrypoint_num_gpus=num_gpus or None,
        )
    except UNREACHABLE as error:
        if "already exists" not in str(error):
            raise JobFailedError(f"Ray refused the job {submission_id}: {error}") from error
    return Job(client, submission_id, folder, num_gpus)


def follow(
    job: Job,
    result_type: type[R],
    *,
    on_log: Callable[[int, str], None],
    on_progress: Callable[[Progress], None],
    stopped: threading.Event | None = None,
    leave: Callable[[], None] = lambda: None,
    sees_its_end: Callable[[], bool] = lambda: True,
) -> R:
    """Waits for a job, handing on what it says; its result.

    An exception in here (Ctrl-C, a cancelled flow run) stops the job before it goes on its way; so does setting
    `stopped` from another thread. `leave` is called twice a second, and may raise. A job that is stopped
    is waited for if `sees_its_end()`.

    Raises:
        JobFailedError: the job failed, with its own error; it was stopped; or the cluster was lost.
    """
    try:
        with _Log(job) as log:
            lost_since: float | None = None
            waiting = _Waiting(job, on_log)
            ended = False
            while not ended:
                leave()
                if stopped is not None and stopped.is_set():
                    raise JobFailedError(
                        f"job {job.submission_id} was stopped, as one that it ran beside did not finish"
                    )
                try:
                    status = job.client.get_job_status(job.submission_id)
                    ended, lost_since = status.is_terminal(), None
                    waiting.look_at(status)
                except UNREACHABLE as error:
                    if "does not exist" in str(error):
                        raise JobFailedError(
                            f"the Ray cluster does not know job {job.submission_id} any more, as after a restart of "
                            "its head; what is finished is kept: retry to go on from there"
                        ) from error
                    # One unanswered request is no verdict: a busy head may be silent for a while.
                    lost_since = lost_since or time.monotonic()
                    if time.monotonic() - lost_since > _LOST_TIMEOUT_S:
                        raise JobFailedError(
                            f"the Ray cluster has not answered about job {job.submission_id} for {_LOST_TIMEOUT_S} s "
                            f"({error}); what is finished is kept: retry when it is back"
                        ) from error
                _hand_on(log.lines, on_log, on_progress, timeout=_POLL_S)
            log.finish()
            _hand_on(log.lines, on_log, on_progress, timeout=0)
    except BaseException:
        stop(job.client, job.submission_id, timeout_s=_STOP_TIMEOUT_S if sees_its_end() else 0)
        raise
    return _outcome(job, result_type)


class _Waiting:
    """Says once that a job is kept waiting, and when it begins after that: a silent run looks like a broken one."""

    def __init__(self, job: Job, on_log: Callable[[int, str], None]) -> None:
        self._job, self._on_log = job, on_log
        self._since, self._told = time.monotonic(), False

    def look_at(self, status: "JobStatus | Status") -> None:
        seconds = time.monotonic() - self._since
        if status == "PENDING" and not self._told and seconds > _SECONDS_BEFORE_WAITING_IS_SAID:
            self._told = True
            gpus = self._job.num_gpus
            wants = f"for {gpus:g} GPU(s), which other jobs hold or no node has" if gpus else "for Ray to start it"
            self._on_log(logging.INFO, f"job {self._job.submission_id} waits {wants}")
        elif status != "PENDING" and self._told:
            self._told = False
            self._on_log(logging.INFO, f"job {self._job.submission_id} begins, after {seconds:.0f} s")


def stop(client: "JobSubmissionClient | OwnJobs", submission_id: str, *, timeout_s: float = _STOP_TIMEOUT_S) -> bool:
    """Stops a job if it still runs, and waits for its end; never raises for a cluster that is gone.

    Ray tells a job that waits for a GPU only when it has got it: such a job ends in that moment, and not before.

    Returns:
        Whether it has ended.
    """
    with contextlib.suppress(*UNREACHABLE):
        if client.get_job_status(submission_id).is_terminal():
            return True
        client.stop_job(submission_id)
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if client.get_job_status(submission_id).is_terminal():
                return True
            time.sleep(_POLL_S)
    return False


def alive_jobs(client: "JobSubmissionClient | OwnJobs") -> dict[str, dict[str, str]]:
    """Jobs that have not ended: submission id -> metadata."""
    return {
        str(details.submission_id): dict(details.metadata or {})
        for details in client.list_jobs()
        if details.submission_id and not details.status.is_terminal()
    }


def unused_id(client: "JobSubmissionClient | OwnJobs", wanted: str) -> str:
    """`wanted`, or one like it: Prefect does not count how often a run is resumed, and Ray takes an id once."""
    taken = {details.submission_id for details in client.list_jobs()}
    return next(
        each for each in itertools.chain([wanted], (f"{wanted}-{n}" for n in itertools.count(2))) if each not in taken
    )


def jobs_of(client: "JobSubmissionClient | OwnJobs", flow_run_id: str) -> list[str]:
    """Jobs that have not ended of a flow run and of the runs within it."""
    return [
        submission_id
        for submission_id, metadata in alive_jobs(client).items()
        if flow_run_id in (metadata.get("flow_run_id"), metadata.get("root_flow_run_id"))
    ]


def _alive(client: "JobSubmissionClient | OwnJobs", metadata: dict[str, str]) -> str | None:
    for submission_id, known in alive_jobs(client).items():
        if metadata.items() <= known.items():
            return submission_id
    return None


def _outcome(job: Job, result_type: type[R]) -> R:
    result = job.folder.read_result(result_type)
    if result is not None:
        return result
    error = job.folder.read_error()
    if error is not None and error.expected:
        raise JobFailedError(f"{error.message} [{error.type} in job {job.submission_id}]")
    if error is not None:
        raise JobFailedError(f"job {job.submission_id} failed: {error.type}: {error.message}; its log has more")
    info = job.client.get_job_info(job.submission_id)
    last_words = (info.message or "").strip().rpartition("\n")[2]
    raise JobFailedError(
        f"job {job.submission_id} ended as {info.status.value} and left neither a result nor an error, as after a "
        f"kill or when memory runs out; its log has more, and ends with: {last_words}"
    )


class _Log:
    """The job's log: its lines as they come, read by a thread; a context manager.

    Attributes:
        lines: those that are to be handed on.
    """

    def __init__(self, job: Job) -> None:
        logging.getLogger("ray.dashboard.modules.job.sdk").setLevel(
            logging.WARNING
        )  # it reports each log's regular end
        self.lines: queue.Queue[str] = queue.Queue()
        self._job, self._num_read = job, 0
        self._loop = asyncio.new_event_loop()
        self._task = self._loop.create_task(self._read())
        self._thread = threading.Thread(target=self._run, name=f"log of {job.submission_id}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    def finish(self) -> None:
        """Of a job that has ended: adds what its log has besides, at once. Ray follows a log every few seconds."""
        self._leave()
        with contextlib.suppress(*UNREACHABLE):
            whole = self._job.client.get_job_logs(self._job.submission_id).split("\n")
            self._put(*(whole if whole[-1] else whole[:-1])[self._num_read :])

    def _put(self, *lines: str) -> None:
        self._num_read += len(lines)
        for line in lines:
            self.lines.put(line)

    async def _read(self) -> None:
        rest = ""
        async for chunk in self._job.client.tail_job_logs(self._job.submission_id):
            *whole, rest = (rest + chunk).split("\n")
            self._put(*whole)
        if rest:
            self._put(rest)

    def _run(self) -> None:
        # The log is a service to the reader: the job's end and result are learnt from elsewhere, and at its end what
        # was not read is fetched.
        try:
            self._loop.run_until_complete(self._task)
        except asyncio.CancelledError:
            pass
        except Exception as error:
            self.lines.put(f"WARNING | the job's log was cut off, its rest follows at the job's end: {error}")
        finally:
            self._loop.close()

    def _leave(self) -> None:
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join(5)


def _hand_on(
    lines: "queue.Queue[str]",
    on_log: Callable[[int, str], None],
    on_progress: Callable[[Progress], None],
    *,
    timeout: float,
) -> None:
    """Hands on the lines that are there, waiting up to `timeout` seconds for the first of them."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            line = lines.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            return
        said = parse_line(line.rstrip("\r"))
        if isinstance(said, Progress):
            on_progress(said)
        elif said[1].strip():
            on_log(*said)
        deadline = min(deadline, time.monotonic() + 0.05)
