"""What the watch makes of logs and of probes that fail; no server is needed."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.service import server_logs, watch
from flows.service.watch import Check, Finding, LogWatch, Report

_SCHEDULER = """\
10:31:00.123 | ERROR   | prefect.server.services.scheduler - Unexpected error in: ScheduleDeployments
Traceback (most recent call last):
  File "prefect/server/services/scheduler.py", line 300, in schedule_deployments
    await session.execute(query)
sqlalchemy.exc.InvalidRequestError: Can't evaluate bulk DML statement; please supply a bulk_dml decorated function
"""
_RETRIED = """\
10:37:03.426 | ERROR   | prefect.server.utilities.messaging.memory - Failed in consume_loop
Traceback (most recent call last):
  File "x.py", line 1, in y
sqlite3.OperationalError: database is locked

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "x.py", line 2, in z
sqlalchemy.exc.OperationalError: (sqlite3.OperationalError) database is locked
[SQL: INSERT INTO automation_bucket]
"""
_LOST = (
    "10:38:00.000 | WARNING | prefect.server.utilities.messaging.memory - Message failed after 4 retries and will be "
    "moved to the dead letter queue\n"
)
_MLFLOW = "2026/11/26 10:00:00 ERROR mlflow.server: (sqlite3.OperationalError) database is locked\n"
_TOO_SLOW = (
    "2026-11-27 01:57:24,312\tINFO node.py:438 -- Failed to get node info b'RPC error: Deadline Exceeded'\n"
    "Traceback (most recent call last):\n"
    '  File "ray/_private/node.py", line 441, in __init__\n'
    "Exception: The current node timed out during startup. This could happen because some of the raylet failed to\n"
)
_FINE = """\
INFO:     127.0.0.1:5 - "GET /api/ready HTTP/1.1" 200 OK
10:31:00.123 | INFO    | prefect.server - the word ERROR in a message, after all
2026/11/26 10:00:00 INFO mlflow.store.db.utils: Creating initial MLflow database tables...
"""


@pytest.mark.parametrize(
    ("program", "text", "found"),
    [
        ("prefect", _SCHEDULER, True),
        ("prefect", _RETRIED, True),
        ("prefect", _LOST, True),
        ("prefect", _FINE, False),
        ("mlflow", _MLFLOW, True),
        ("ray", "Traceback (most recent call last):\n  File 'x'\nOSError: no\n", True),
        ("ray", "2026-11-26 10:54:25,856\tERROR scripts.py:1 -- Ray runtime terminated\n", True),
        ("ray", "[2026-11-26 10:54:25,857 E 12 34] (gcs_server) x.cc:1: a node is dead\n", True),
        ("ray", _TOO_SLOW, False),
        # What a run says is on its page.
        ("worker", "10:00:00.000 | ERROR   | Flow run 'odd-owl' - it failed\n" + _SCHEDULER, False),
        ("worker", "10:00:00.000 | ERROR   | prefect.worker.process.worker - cannot be reached\n", True),
        # Its rounds are watched, and servers come and go.
        ("reconciler", "cannot look after the jobs for now: JobFailedError: Ray does not answer\n", False),
        (
            "ray",
            "2026-11-27 23:48:53,528\tINFO scripts.py:1043 -- Local node IP: 127.0.0.1\n"
            "Exception ignored in atexit callback:\nTraceback (most recent call last):\n"
            '  File "ray/_private/node.py", line 662, in sigterm_handler\n    sys.exit(1)\nSystemExit: 1\n',
            False,
        ),
    ],
)
def test_what_is_trouble(program: str, text: str, found: bool) -> None:
    records = list(server_logs.records((_FINE + text + _FINE).splitlines()))
    assert [server_logs.is_trouble(program, each) for each in records].count(True) == int(found)


def test_every_exception_to_the_rule_has_a_reason() -> None:
    assert all(len(each.reason.split()) > 5 for each in server_logs.KNOWN)


def test_a_record_in_short() -> None:
    (record,) = server_logs.records(_SCHEDULER.splitlines())
    assert server_logs.in_short(record) == (
        "10:31:00.123 | ERROR   | prefect.server.services.scheduler - Unexpected error in: ScheduleDeployments … "
        "sqlalchemy.exc.InvalidRequestError: Can't evaluate bulk DML statement; please supply a bulk_dml decorated "
        "function"
    )


class TestTail:
    def test_a_traceback_that_comes_in_pieces_is_one_record(self, tmp_path: Path) -> None:
        log = tmp_path / "x.log"
        tail = server_logs.Tail(log)
        assert tail.read() == []
        for piece in (_SCHEDULER[:150], _SCHEDULER[150:260], _SCHEDULER[260:]):
            with log.open("a") as file:
                file.write(piece)
            assert tail.read() == []
        assert tail.read() == [_SCHEDULER.rstrip("\n")]
        assert tail.read() == []

    def test_what_was_there_is_passed_over_and_a_new_file_is_not(self, tmp_path: Path) -> None:
        log = tmp_path / "x.log"
        log.write_text(_LOST)
        tail = server_logs.Tail(log)
        tail.skip()
        assert tail.read() == []
        os.replace(log, tmp_path / "x.log.1")  # as supervisord does with one that is too large
        log.write_text(_MLFLOW + _LOST)
        assert tail.read() == [_MLFLOW.rstrip("\n")]
        assert tail.read() == [_LOST.rstrip("\n")]


class TestLogWatch:
    def test_lately_and_since_the_start(self, tmp_path: Path) -> None:
        log = tmp_path / "prefect.log"
        log.write_text(_SCHEDULER)
        watched = LogWatch("prefect", log)
        well = Finding(name="prefect: log")
        assert watched.look(0, pid=7) == well
        with log.open("a") as file:
            file.write(_LOST)
        watched.look(10, pid=7)
        said = watched.look(20, pid=7).reason
        assert said is not None
        assert "dead letter queue (`pairflow logs prefect`)" in said
        with log.open("a") as file:
            file.write(_SCHEDULER)
        watched.look(30, pid=7)
        assert str(watched.look(40, pid=7).reason).startswith("2 times in ten minutes, last: 10:31:00.123 | ERROR")
        assert watched.look(639, pid=7).reason is not None
        assert watched.look(641, pid=7) == well

    def test_a_program_that_was_started_again_begins_well(self, tmp_path: Path) -> None:
        log = tmp_path / "prefect.log"
        log.touch()
        watched = LogWatch("prefect", log)
        watched.look(0, pid=7)
        log.write_text(_LOST)
        watched.look(10, pid=7)
        assert watched.look(20, pid=7).reason is not None
        assert watched.look(30, pid=8).reason is None


class TestCheck:
    def test_patience(self) -> None:
        answers: Iterator[str | None] = iter(["no", "no", None, "no", "still no"])
        check = Check("x: y", lambda: next(answers), patience_s=15)
        assert [check.look(now).reason for now in (0, 10, 20, 30, 50)] == [None, None, None, None, "still no"]

    def test_not_more_often_than_wanted(self) -> None:
        asked = []
        check = Check("x: y", lambda: asked.append(1), patience_s=0, every_s=60)
        for now in (0, 10, 59, 60, 70):
            check.look(now)
        assert len(asked) == 2

    def test_one_late_answer_is_not_said(self) -> None:
        """Not even of what is asked seldom: it is asked again within its patience."""
        answers: Iterator[str | None] = iter([None, "late", None])
        check = Check("x: y", lambda: next(answers, None), patience_s=30, every_s=60)
        assert [check.look(now).reason for now in range(0, 140, 10)] == [None] * 14

    def test_what_is_well_again_is_soon_called_so(self) -> None:
        """As Ray's head that was killed: it was away when it was asked, and long back at its next turn."""
        said = []
        check = Check("x: y", lambda: "away" if 55 < now < 100 else None, patience_s=30, every_s=60)
        for now in range(0, 140, 10):
            if check.look(now).reason is not None:
                said.append(now)
        assert said == [90]

    def test_a_server_that_is_away(self) -> None:
        def refused() -> None:
            raise ConnectionRefusedError("[Errno 111] Connection refused")

        reason = Check("x: y", refused, patience_s=0).look(0).reason
        assert reason == "no answer that can be used: ConnectionRefusedError: [Errno 111] Connection refused"


class TestReport:
    def test_an_old_one_says_that_nobody_watches(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "service").mkdir()
        assert watch.read(tmp_path) is None
        report = Report(at=1000.0, findings=(Finding(name="a: b", reason="c"),))
        watch._write(tmp_path, report)
        monkeypatch.setattr("time.time", lambda: 1060.0)
        assert watch.read(tmp_path) == report
        monkeypatch.setattr("time.time", lambda: 2000.0)
        assert watch.read(tmp_path) is None
        watch.forget(tmp_path)
        watch.forget(tmp_path)
