"""Jobs that are processes of the command: by the calls of Ray's client, with toy modules in the cluster's folder."""

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from flows.cluster import connection, own_jobs
from flows.cluster.own_jobs import OwnJobs, Status
from flows.cluster.protocol import JOB_URL_VARIABLE
from flows.home.settings import Settings
from pairflow.errors import JobFailedError

_SAYS = "print(os.environ['OF_ALL'], os.environ['OF_ONE'], os.environ['PAIRFLOW_RAY_FOLDER'], 'bär')"
_WAITS = "print(os.getpid(), flush=True); time.sleep(600)"
_MODULES = {
    "says": f"import os; {_SAYS}",
    "told": "import os; from flows.cluster import protocol; print(os.getpid(), protocol._job_url())",
    "fails": "raise SystemExit(3)",
    "waits": f"import os, time; {_WAITS}",
    "deaf": f"import os, signal, time; signal.signal(15, signal.SIG_IGN); {_WAITS}",
}


class _Cluster:
    """Of which jobs need no more than a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.environment, self.ended = folder, {"RAY_ADDRESS": "http://127.0.0.1:1"}, False
        self.started, self.wanted = False, False

    def start(self) -> None:
        self.started = True

    def check(self) -> None:
        if self.ended:
            raise JobFailedError("the local Ray cluster has ended")


@pytest.fixture
def cluster(tmp_path: Path) -> Any:
    for name, text in _MODULES.items():
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
    return _Cluster(tmp_path)


@pytest.fixture
def jobs(cluster: Any) -> Iterator[OwnJobs]:
    mine = OwnJobs(cluster, {"OF_ALL": "all"})
    yield mine
    mine.close()


def _submit(jobs: OwnJobs, module: str, name: str = "a-job", **variables: str) -> str:
    url = {JOB_URL_VARIABLE: f"/store/jobs/{name}"}
    return jobs.submit_job(
        entrypoint=f"python -m {module}",
        submission_id=name,
        metadata={"flow_run_id": "r"},
        runtime_env={"env_vars": url | variables},
    )


def _end(jobs: OwnJobs, name: str = "a-job") -> Status:
    deadline = time.monotonic() + 120
    while not (status := jobs.get_job_status(name)).is_terminal():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return status


def _pid(jobs: OwnJobs, name: str = "a-job") -> int:
    deadline = time.monotonic() + 120
    while not (said := jobs.get_job_logs(name)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return int(said.split()[0])


async def _followed(jobs: OwnJobs, name: str = "a-job") -> str:
    return "".join([chunk async for chunk in jobs.tail_job_logs(name)])


def test_a_job_has_its_environment_and_its_log(jobs: OwnJobs, cluster: Any) -> None:
    assert _submit(jobs, "says", OF_ONE="one") == "a-job"
    assert asyncio.run(_followed(jobs)) == f"all one {cluster.folder} bär\n"
    assert _end(jobs) is Status.SUCCEEDED
    assert jobs.get_job_logs("a-job") == f"all one {cluster.folder} bär\n"
    (listed,) = jobs.list_jobs()
    assert (listed.submission_id, listed.metadata) == ("a-job", {"flow_run_id": "r"})


def test_one_that_fails(jobs: OwnJobs) -> None:
    _submit(jobs, "fails")
    assert _end(jobs) is Status.FAILED
    assert jobs.get_job_info("a-job").message == "exit code 3"


def test_an_expected_process_hears_which_job_it_is(jobs: OwnJobs) -> None:
    jobs.expect("told")
    _submit(jobs, "told")
    assert _end(jobs) is Status.SUCCEEDED
    assert jobs.get_job_logs("a-job").split()[1:] == ["/store/jobs/a-job"]
    _submit(jobs, "told", "another")  # by a process of its own
    assert _end(jobs, "another") is Status.SUCCEEDED
    assert jobs.get_job_logs("another").split()[1:] == ["/store/jobs/another"]


def test_one_that_is_expected_in_vain_does_not_stay(jobs: OwnJobs) -> None:
    jobs.expect("waits")
    (in_vain,) = jobs._processes
    _submit(jobs, "fails")
    assert in_vain.holder.wait(60) == 0
    assert _end(jobs) is Status.FAILED


def test_several_are_expected_each_while_the_one_before_works(jobs: OwnJobs) -> None:
    """What was found, and so is never submitted, is passed over."""
    jobs.expect("told", "waits", "told", "told")
    assert len(jobs._processes) == 1
    for number, name in enumerate(("a-job", "another", "a-third")):
        _submit(jobs, "told", name)
        assert len(jobs._processes) == (2, 4, 4)[number], "the second one waited to be what was found"
        assert _end(jobs, name) is Status.SUCCEEDED
        assert jobs.get_job_logs(name).split()[1:] == [f"/store/jobs/{name}"]
    assert jobs._processes[1].holder.wait(60) == 0
    _submit(jobs, "fails", "a-fourth")  # none is expected any more
    assert _end(jobs, "a-fourth") is Status.FAILED


def test_none_is_started_for_later_while_more_work_than_there_are_cores(
    jobs: OwnJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_jobs, "_CORES", 1)
    jobs.expect("waits", "told", "told")
    _submit(jobs, "waits")
    assert len(jobs._processes) == 2
    _submit(jobs, "told", "another")
    assert len(jobs._processes) == 2, "two are at work"
    assert _end(jobs, "another") is Status.SUCCEEDED
    assert len(jobs._processes) == 3
    _submit(jobs, "told", "a-third")
    assert _end(jobs, "a-third") is Status.SUCCEEDED
    assert jobs.get_job_logs("a-third").split()[1:] == ["/store/jobs/a-third"]
    assert len(jobs._processes) == 3


@pytest.mark.parametrize("module", ["waits", "deaf"])
def test_a_stopped_one_is_gone(jobs: OwnJobs, module: str) -> None:
    _submit(jobs, module)
    process = psutil.Process(_pid(jobs))
    assert jobs.get_job_status("a-job") is Status.RUNNING
    assert jobs.stop_job("a-job")
    assert _end(jobs) is Status.STOPPED
    assert not process.is_running()


def test_the_end_of_the_command_ends_all(cluster: Any) -> None:
    others = psutil.Process().children(recursive=True)
    jobs = OwnJobs(cluster, {})
    _submit(jobs, "waits")
    jobs.expect("told")
    processes = [psutil.Process(_pid(jobs)), *psutil.Process().children(recursive=True)]
    processes = [each for each in processes if each not in others]
    assert len(processes) > 3
    jobs.close()
    assert [each for each in processes if each.is_running() and each.status() != psutil.STATUS_ZOMBIE] == []


def test_a_name_is_given_once(jobs: OwnJobs) -> None:
    _submit(jobs, "fails")
    with pytest.raises(RuntimeError, match="already exists"):
        _submit(jobs, "fails")


def test_the_cluster_starts_when_a_job_wants_it(jobs: OwnJobs, cluster: Any) -> None:
    _submit(jobs, "waits")
    assert jobs.get_job_status("a-job") is Status.RUNNING
    assert not cluster.started
    cluster.wanted = True
    assert jobs.get_job_status("a-job") is Status.RUNNING
    assert cluster.started


def test_a_cluster_that_has_ended_is_said(jobs: OwnJobs, cluster: Any) -> None:
    _submit(jobs, "waits")
    cluster.ended = True
    with pytest.raises(JobFailedError, match="has ended"):
        jobs.get_job_status("a-job")


_A_COMMAND = """
import sys, time
from pathlib import Path
from types import SimpleNamespace
from flows.cluster.own_jobs import OwnJobs
cluster = SimpleNamespace(folder=Path(sys.argv[1]), environment={"RAY_ADDRESS": ""}, wanted=False, check=lambda: None)
jobs = OwnJobs(cluster, {})
url = {"env_vars": {"PAIRFLOW_JOB_URL": "/store/jobs/a-job"}}
jobs.submit_job(entrypoint="python -m waits", submission_id="a-job", metadata={}, runtime_env=url)
jobs.expect("told")
while not (said := jobs.get_job_logs("a-job")):
    time.sleep(0.1)
print(said, flush=True)
time.sleep(600)
"""


def test_a_killed_command_leaves_no_job_behind(cluster: Any) -> None:
    command = subprocess.Popen(
        [sys.executable, "-c", _A_COMMAND, str(cluster.folder)], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
    )
    assert command.stdout is not None
    job = psutil.Process(int(command.stdout.readline()))
    started = psutil.Process(command.pid).children(recursive=True)
    assert job in started
    assert len(started) >= 3  # two holders, a job, and soon a process that waits to hear which it is
    command.kill()
    command.communicate()
    _, alive = psutil.wait_procs(started, timeout=40)
    assert alive == []
    assert not cluster.folder.exists()


@pytest.mark.parametrize(
    ("chosen", "told", "by_server"),
    [
        ({}, None, False),
        ({}, "{}", False),
        ({}, '{"GPU": 1}', True),
        ({"gpus_per_job": 0}, '{"GPU": 1}', False),
        ({"gpus_per_job": 1}, None, True),
        ({"train_workers": 2}, None, True),
    ],
)
def test_jobs_that_may_want_gpus_or_several_workers_go_to_ray(
    chosen: dict[str, Any], told: str | None, by_server: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: dict[str, Any] = {}

    class Fake(_Cluster):
        def __init__(self, home: Path, **options: Any) -> None:
            super().__init__(home)
            made.update(options, cluster=self)

        def stop(self) -> None:
            self.ended = True

    monkeypatch.setattr(connection, "LocalCluster", Fake)
    monkeypatch.setattr(connection, "_SIGNS_OF_GPUS", (str(tmp_path / "none"),))
    monkeypatch.delenv("RAY_OVERRIDE_RESOURCES", raising=False)
    if told is not None:
        monkeypatch.setenv("RAY_OVERRIDE_RESOURCES", told)
    settings = Settings(home=tmp_path, **chosen)
    with connection.Cluster(settings) as cluster:
        assert made["job_server"] is made["cluster"].started is by_server
        if not by_server:
            assert isinstance(cluster.client, OwnJobs)
            assert cluster.job_settings.gpus_per_job == 0
            assert made["for_jobs"]["PAIRFLOW_GPUS_PER_JOB"] == "0.0"
    assert made["cluster"].ended
