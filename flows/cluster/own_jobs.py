"""Jobs of a cluster of one command: processes beside it, behind the calls of Ray's job client that PairFlow makes.

Ray's job server takes seconds of a core to start, and so does the supervisor that it starts for every job. A cluster
that ends with its command needs neither: each job is a driver of its own accord, which ends with the command (see
`flows.home.held`). It also begins sooner. The next job's process may be started before that job is known, and has
imported all it needs when that comes; and Ray starts when a job first has tasks for it, and not while all else starts.
"""

import asyncio
import codecs
import collections
import enum
import itertools
import json
import os
import shlex
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.cluster.local import LocalCluster
from flows.cluster.protocol import EXPECTED_VARIABLE, JOB_URL_VARIABLE
from flows.home.held import let_go, start_holder

HEAD_VARIABLE = "PAIRFLOW_RAY_FOLDER"
"""The folder of the head that a job on this machine connects to, when it needs it."""
_SECONDS_BETWEEN_READINGS = 0.05
_CORES = os.cpu_count() or 1


class Status(enum.StrEnum):
    """Of a job; named as Ray names them."""

    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    STOPPED = "STOPPED"

    def is_terminal(self) -> bool:
        return self is not Status.RUNNING


@dataclass
class OwnJob:
    """A job, as Ray's client would tell of it.

    Attributes:
        submission_id: its name.
        metadata: as it was submitted with.
        message: why it ended, in a word.
    """

    submission_id: str
    metadata: dict[str, str]
    _process: "_Process"
    _stopped: bool = False

    @property
    def status(self) -> Status:
        code = self._process.holder.poll()
        if code is None:
            return Status.RUNNING
        return Status.STOPPED if self._stopped else Status.FAILED if code else Status.SUCCEEDED

    @property
    def message(self) -> str:
        return f"exit code {self._process.holder.poll()}"

    def stop(self) -> None:
        """Has its process told to end, and killed if it does not."""
        self._stopped = self._stopped or not self.status.is_terminal()
        self._process.release()

    @property
    def log_path(self) -> Path:
        """All that it says."""
        return self._process.log


class OwnJobs:
    """The jobs of one command.

    Args:
        cluster: their cluster, which is started once one of them waits for it.
        variables: environment variables that all of them have.
    """

    def __init__(self, cluster: LocalCluster, variables: Mapping[str, str]) -> None:
        self._cluster = cluster
        self._environment = {
            **os.environ,
            **variables,
            **cluster.environment,
            HEAD_VARIABLE: str(cluster.folder),
            # As Ray starts a driver: what is to compute with more threads says so itself.
            "OMP_NUM_THREADS": "1",
            "PYTHONUNBUFFERED": "1",
        }
        del self._environment["RAY_ADDRESS"]
        self._processes: list[_Process] = []
        self._expected: collections.deque[str] = collections.deque()
        self._next: _Process | None = None
        self._one_at_a_time = threading.Lock()  # jobs may start side by side
        self._jobs: dict[str, OwnJob] = {}
        self._numbers = itertools.count(1)

    def expect(self, *modules: str) -> None:
        """Jobs of these modules are about to be submitted, in this order, where there is work for them.

        A process is started for the first one, and for each other once the one before was submitted: it imports what
        its job needs meanwhile. Where more jobs are at work than there are cores, it waits for one of them to end: else
        it would take from them, and then hold memory for as long as they train.
        """
        with self._one_at_a_time:
            self._expected = collections.deque(modules)
            self._look_ahead()

    def _look_ahead(self) -> None:
        at_work = sum(not each.status.is_terminal() for each in self._jobs.values())
        if self._expected and self._next is None and at_work <= _CORES:
            self._next = self._start(self._expected[0], {})

    def close(self) -> None:
        """Ends all that still runs."""
        for each in self._processes:
            each.release()
        for each in self._processes:
            let_go(each.holder)

    def submit_job(
        self,
        *,
        entrypoint: str,
        submission_id: str,
        metadata: dict[str, str],
        runtime_env: dict[str, Any] | None = None,
        **_: Any,
    ) -> str:
        """Starts `python -m module` with its environment, or tells the process that was started for it what it is."""
        *_python, module = shlex.split(entrypoint)
        variables: dict[str, str] = (runtime_env or {}).get("env_vars", {})
        with self._one_at_a_time:
            if submission_id in self._jobs:
                raise RuntimeError(f"a job {submission_id} already exists")
            process = self._take(module)
            if process is None:
                process = self._start(module, variables)
            else:
                process.tell(variables[JOB_URL_VARIABLE])
            self._jobs[submission_id] = OwnJob(submission_id, metadata, process)
            self._look_ahead()
        return submission_id

    def _take(self, module: str) -> "_Process | None":
        """The process that waits for a job of this module, which is expected no more; nor are those before it."""
        process, self._next = self._next, None
        waits_for = self._expected[0] if self._expected else None
        while self._expected and self._expected.popleft() != module:
            pass
        if process is None or (waits_for == module and process.holder.poll() is None):
            return process
        process.release()  # its work was found, or may be days away
        return None

    def get_job_info(self, submission_id: str) -> OwnJob:
        return self._jobs[submission_id]

    def get_job_status(self, submission_id: str) -> Status:
        status = self._jobs[submission_id].status
        if not status.is_terminal():
            if self._cluster.wanted:
                self._cluster.start()
            self._cluster.check()
        elif status is Status.SUCCEEDED:
            with self._one_at_a_time:
                self._look_ahead()
        return status

    def list_jobs(self) -> list[OwnJob]:
        return list(self._jobs.values())

    def stop_job(self, submission_id: str) -> bool:
        self._jobs[submission_id].stop()
        return True

    def get_job_logs(self, submission_id: str) -> str:
        return self._jobs[submission_id].log_path.read_text(encoding="utf-8", errors="replace")

    async def tail_job_logs(self, submission_id: str) -> AsyncIterator[str]:
        job, decoder = self._jobs[submission_id], codecs.getincrementaldecoder("utf-8")("replace")
        with job.log_path.open("rb") as log:
            while True:
                ended = job.status.is_terminal()  # looked at before the last of the log is read
                if text := decoder.decode(log.read(), final=ended):
                    yield text
                elif ended:
                    return
                await asyncio.sleep(_SECONDS_BETWEEN_READINGS)

    def _start(self, module: str, variables: Mapping[str, str]) -> "_Process":
        path = self._cluster.folder / f"job-{next(self._numbers)}"
        expected = {} if JOB_URL_VARIABLE in variables else {EXPECTED_VARIABLE: f"{path}.url"}
        log = Path(f"{path}.log")
        log.touch()  # whoever follows it need not wait for its first line
        holder = start_holder(
            "flows.home.held",
            json.dumps(
                {"words": [sys.executable, "-m", module], "log": str(log), "remains": str(self._cluster.folder)}
            ),
            environment=self._environment | dict(variables) | expected,
            folder=self._cluster.folder,
        )
        process = _Process(holder, log, Path(f"{path}.url"))
        self._processes.append(process)
        return process


@dataclass(frozen=True)
class _Process:
    """A job's process, or one that waits to hear which job it is."""

    holder: "subprocess.Popen[bytes]"
    log: Path
    url: Path

    def tell(self, job_url: str) -> None:
        whole = self.url.with_suffix(".new")
        whole.write_text(job_url, encoding="utf-8")
        whole.rename(self.url)

    def release(self) -> None:
        """Has it ended, without waiting for that."""
        if self.holder.stdin is not None and not self.holder.stdin.closed:
            self.holder.stdin.close()
