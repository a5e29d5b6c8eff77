"""What becomes of a job whose follower is interrupted."""

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
