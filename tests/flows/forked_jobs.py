"""Jobs that fork off the nursery, behind the client of Ray's job server: for tests that are not about that server.

Each is a process of its own with the environment that Ray gives a job's driver; its tasks run on the real cluster.
"""

import asyncio
import json
import os
import shlex
import signal
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ray.job_submission import JobStatus

from tests.flows.nursery import VARIABLE, Child

GCS_VARIABLE = "PAIRFLOW_TEST_GCS"
"""Address at which a driver finds the session's cluster."""


@dataclass
class ForkedJob:
    """What the client tells of a job; named as Ray names it."""

    submission_id: str
    metadata: dict[str, str]
    child: Child
    log: Path
    status: JobStatus = JobStatus.RUNNING
    message: str = ""
    stopped: bool = field(default=False, repr=False)

    def look(self) -> JobStatus:
        if self.status is JobStatus.RUNNING:
            try:
                code = self.child.wait(0)
            except TimeoutError:
                return self.status
            ended = JobStatus.SUCCEEDED if code == 0 else JobStatus.FAILED
            self.status, self.message = JobStatus.STOPPED if self.stopped else ended, f"exit code {code}"
        return self.status


class ForkedJobs:
    """The calls of `JobSubmissionClient` that PairFlow makes."""

    def __init__(self, address: str, **_: Any) -> None:
        self._address = address
        self._jobs: dict[str, ForkedJob] = {}

    def get_address(self) -> str:
        return self._address

    def submit_job(
        self,
        *,
        entrypoint: str,
        submission_id: str,
        metadata: dict[str, str],
        runtime_env: dict[str, Any],
        **_: Any,
    ) -> str:
        _, option, module = shlex.split(entrypoint)
        assert option == "-m"
        if submission_id in self._jobs:
            raise RuntimeError(f"Job with submission_id {submission_id} already exists")
        folder = Path(tempfile.mkdtemp(prefix="pairflow-job-", dir=os.environ["PAIRFLOW_HOME"]))
        environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
        environment |= runtime_env["env_vars"]
        environment |= {
            "RAY_ADDRESS": os.environ[GCS_VARIABLE],
            "RAY_JOB_CONFIG_JSON_ENV_VAR": json.dumps({"runtime_env": runtime_env, "metadata": metadata}),
            "OMP_NUM_THREADS": "1",
            "PYTHONUNBUFFERED": "1",
        }
        log = folder / "log"
        child = Child(os.environ[VARIABLE], module, environment=environment, stdout=log, stderr=log, cwd=folder)
        self._jobs[submission_id] = ForkedJob(submission_id, metadata, child, log)
        return submission_id

    def get_job_status(self, submission_id: str) -> JobStatus:
        return self._jobs[submission_id].look()

    def get_job_info(self, submission_id: str) -> ForkedJob:
        return self._jobs[submission_id]

    def list_jobs(self) -> list[ForkedJob]:
        for each in self._jobs.values():
            each.look()
        return list(self._jobs.values())

    def stop_job(self, submission_id: str) -> bool:
        job = self._jobs[submission_id]
        job.stopped = True
        os.killpg(job.child.pid, signal.SIGTERM)  # a session of its own, so its own processes only
        return True

    def get_job_logs(self, submission_id: str) -> str:
        log = self._jobs[submission_id].log
        return log.read_text(errors="replace") if log.exists() else ""

    async def tail_job_logs(self, submission_id: str) -> AsyncIterator[str]:
        job = self._jobs[submission_id]
        read = 0
        while True:
            ended = job.status is not JobStatus.RUNNING  # looked at before the last of the log is read
            if job.log.exists() and len(text := job.log.read_text(errors="replace")) > read:
                yield text[read:]
                read = len(text)
            elif ended:
                return
            await asyncio.sleep(0.05)
