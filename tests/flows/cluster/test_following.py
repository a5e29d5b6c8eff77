"""What becomes of a job whose follower is interrupted."""

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from ray.job_submission import JobStatus

from flows.cluster import submission
from flows.cluster.protocol import JobFolder
from flows.results import PairResult


class _Cluster:
    """Its one job ends at the third look after it was told to stop."""

    def __init__(self) -> None:
        self.told, self.looks_after = 0, 0

    def get_job_status(self, _: str) -> JobStatus:
        self.looks_after += self.told
        return JobStatus.STOPPED if self.looks_after == 3 else JobStatus.RUNNING

    def stop_job(self, _: str) -> bool:
        self.told += 1
        return True

    async def tail_job_logs(self, _: str) -> Any:
        for line in ():
            yield line


@pytest.mark.parametrize(("sees_its_end", "looks"), [(True, 3), (False, 0)])
def test_an_interrupted_follower_waits_where_nobody_comes_after(sees_its_end: bool, looks: int, tmp_path: Path) -> None:
    def leave() -> None:
        raise KeyboardInterrupt

    cluster: Any = _Cluster()
    job = submission.Job(cluster, "a-job", JobFolder(str(tmp_path)))
    with pytest.raises(KeyboardInterrupt):
        submission.follow(
            job,
            PairResult,
            on_log=lambda *_: None,
            on_progress=lambda _: None,
            leave=leave,
            sees_its_end=lambda: sees_its_end,
        )
    assert (cluster.told, cluster.looks_after) == (1, looks)


class _Ended:
    """A job that has ended, whose log is followed as far as `followed` says, and then `fails` or stands still."""

    def __init__(self, log: str, followed: int, *, fails: bool = False) -> None:
        self._log, self._followed, self._fails = log, followed, fails
        self.read = threading.Event()

    def get_job_status(self, _: str) -> JobStatus:
        return JobStatus.SUCCEEDED if self.read.wait(5) else JobStatus.RUNNING

    def get_job_logs(self, _: str) -> str:
        return self._log

    async def tail_job_logs(self, _: str) -> Any:
        if self._followed:
            yield self._log[: self._followed]
        self.read.set()
        if self._fails:
            raise RuntimeError("the connection was closed")
        await asyncio.sleep(60)


_LOG = "INFO | one\nINFO | two\nthree\nINFO | four\n"


@pytest.mark.parametrize("followed", [0, 3, 11, 12, 24, len(_LOG) - 1, len(_LOG)])
@pytest.mark.parametrize("fails", [False, True])
def test_every_line_is_handed_on_once_however_far_the_log_was_followed(
    followed: int, fails: bool, tmp_path: Path
) -> None:
    said: list[tuple[int, str]] = []
    cluster: Any = _Ended(_LOG, followed, fails=fails)
    job = submission.Job(cluster, "a-job", JobFolder(str(tmp_path)))
    began = time.monotonic()
    with pytest.raises(AttributeError, match="get_job_info"):  # it left no result, of which more would be asked
        submission.follow(job, PairResult, on_log=lambda *line: said.append(line), on_progress=lambda _: None)
    assert time.monotonic() - began < 30  # it does not wait for a log that stands still
    lost = [text for _, text in said if "was cut off" in text]
    assert len(lost) == fails
    assert [text for _, text in said if text not in lost] == ["one", "two", "three", "four"]
