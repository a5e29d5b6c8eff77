"""Signals, closed pipes and full disks: how commands end, and what they leave."""

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import numpy as np
import psutil
import pytest

_WORKS = """
import sys, time
from flows.command import signals
signals._PATIENCE_S = signals._patience[0] = float(sys.argv[1])
with signals.handled():
    try:
        print("at work", flush=True)
        time.sleep(60)
    finally:
        print("ending", flush=True)
        time.sleep(float(sys.argv[2]))
        print("ended", flush=True)
"""
_OWNS = """
import os, sys, time
from pathlib import Path
from flows.home.held import start_holder
holder = start_holder("tests_holder", environment=os.environ, folder=Path(sys.argv[1]))
print("owns", flush=True)
time.sleep(60)
"""
_HOLDS = """
import os, sys
from pathlib import Path
from flows.home.held import hold
grandchild = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(61)'], "
grandchild += "start_new_session=True); time.sleep(62)"
hold(lambda: ([sys.executable, "-c", grandchild], None), Path("log"))
"""


@contextlib.contextmanager
def _started(code: str, *arguments: object, first: str, **variables: str) -> Iterator["subprocess.Popen[str]"]:
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env=os.environ | variables,
    )
    with process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().strip() == first
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_first_signal_ends_in_order(number: signal.Signals) -> None:
    with _started(_WORKS, 30, 0.1, first="at work") as process:
        os.kill(process.pid, number)
        os.killpg(process.pid, number)  # as `timeout` does: the process, and its group
        said = process.communicate(timeout=90)[0]
        assert process.returncode == 128 + number
        assert said.split("\n")[:2] == ["ending", "ended"]
        assert "Traceback" not in said


def test_second_signal_ends_at_once() -> None:
    with _started(_WORKS, 30, 30, first="at work") as process:
        process.send_signal(signal.SIGTERM)
        time.sleep(1.5)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        began = time.monotonic()
        process.wait(10)
        assert time.monotonic() - began < 5
        assert process.returncode == 128 + signal.SIGTERM


def test_what_hangs_in_ending_is_cut_off() -> None:
    with _started(_WORKS, 1, 50, first="at work") as process:
        process.send_signal(signal.SIGHUP)
        assert process.wait(15) == 128 + signal.SIGHUP


def test_ignored_signals_stay_ignored() -> None:
    """As after nohup, and SIGINT in a script's `command &`."""
    code = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n" + _WORKS
    with _started(code, 30, 0, first="at work") as process:
        process.send_signal(signal.SIGHUP)
        time.sleep(1)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 128 + signal.SIGTERM


@pytest.mark.parametrize("how", ["kill", "terminate"])
def test_what_is_held_ends_with_its_owner(tmp_path: Path, how: str) -> None:
    """Also what has a session of its own, as Ray's workers have."""
    (tmp_path / "tests_holder.py").write_text(_HOLDS)
    mark = uuid4().hex

    def left() -> list[int]:
        found = []
        for each in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if each.environ().get("PAIRFLOW_TEST_MARK") == mark and each.status() != psutil.STATUS_ZOMBIE:
                    found.append(each.pid)
        return found

    with _started(_OWNS, tmp_path, first="owns", PAIRFLOW_TEST_MARK=mark) as process:
        deadline = time.monotonic() + 40
        while len(left()) < 4 and time.monotonic() < deadline:
            time.sleep(0.1)
        assert len(left()) == 4  # owner, holder, what it holds, and a child of that
        getattr(process, how)()
        process.wait(10)
        deadline = time.monotonic() + 20
        while left() and time.monotonic() < deadline:
            time.sleep(0.2)
        assert left() == []


def test_closed_pipe(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "flows.command.app", "datasets", "--json"],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PAIRFLOW_HOME": str(tmp_path)},
        check=False,
    )
    os.close(writing)
    assert done.stderr == ""
    assert done.returncode == 128 + signal.SIGPIPE


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", "<&- >&- 2>&-"])
def test_closed_streams(tmp_path: Path, closed: str) -> None:
    """As a daemon's are: what is printed goes nowhere, and into no file that took the stream's number."""
    words = ["sample", "--model", "pretrained:digits", "-n", "2", "--steps", "1", "--out", str(tmp_path / "out.npy")]
    line = shlex.join([sys.executable, "-m", "flows.command.app", *words])
    environment = os.environ | {"PAIRFLOW_HOME": str(tmp_path / "home")}
    done = subprocess.run(["bash", "-c", f"{line} {closed}"], capture_output=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert np.load(tmp_path / "out.npy").shape == (2, 64)
    assert ">&-" in closed or b"out.npy" in done.stdout

    refused = shlex.join([sys.executable, "-m", "flows.command.app", "verify", "nosuch"])
    done = subprocess.run(["bash", "-c", f"{refused} {closed}"], capture_output=True, env=environment, check=False)
    assert done.returncode == 1
    assert done.stdout == b""
    assert b"Traceback" not in done.stderr
    assert "2>&-" in closed or b"error: " in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_full_disk_behind_standard_output(tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "flows.command.app", "datasets", "--json"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PAIRFLOW_HOME": str(tmp_path)},
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "No space left" in done.stderr
