"""After `pairflow down`, and after a start that is interrupted, nothing is left."""

import signal
import subprocess
import sys

import pytest

from .user import User, words_of

pytestmark = pytest.mark.story


def test_down_leaves_nothing(user: User) -> None:
    running = user.processes()
    done = user.run("down")
    assert done.returncode == 0, done.stderr
    assert [each for each in running if each.is_running()] == []
    assert user.processes() == []
    assert "nothing runs" in user.run("down").stdout
    assert user.run("status").returncode == 1


def test_ctrl_c_ends_a_start_cleanly(user: User) -> None:
    up = subprocess.Popen(
        [sys.executable, "-m", "flows.command.app", "up"],
        env=user.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    user.wait_for(lambda: any("mlflow" in words_of(each) for each in user.processes()), timeout_s=120)
    up.send_signal(signal.SIGINT)
    said = up.communicate(timeout=240)[0].decode()
    assert up.returncode == 128 + signal.SIGINT, said
    assert "Traceback" not in said
    assert user.processes() == []
