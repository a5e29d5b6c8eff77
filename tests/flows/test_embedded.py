"""What a newcomer has: no server of any kind. Everything is started for one command, and is gone after it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

from .conftest import Cli

_HOLDS_A_CLUSTER = """
import sys, time
from pathlib import Path
from flows.cluster.local import LocalCluster
with LocalCluster(Path(sys.argv[1]), object_store_mb=100, num_cpus=1) as cluster:
    cluster.wait()
    print(cluster.address, flush=True)
    time.sleep(600)
"""


def test_one_command_without_any_server(new_bare_cli: Cli, tmp_path: Path) -> None:
    done = new_bare_cli("pair", "--dataset", "digits", "--max-rows", 120, "--store", tmp_path / "store", "--json")
    assert done.code == 0, done.stderr
    result = json.loads(done.last_line)
    assert result["rows"] == 108
    assert Path(result["url"]).is_relative_to(tmp_path / "store")
    assert "pair digits ▸ " in done.stderr


def test_token_is_for_its_owner_only(bare_cli: Cli, home: Path, ray_cluster: object) -> None:
    assert (home / "ray" / "token").stat().st_mode & 0o777 == 0o600


def test_a_killed_owner_leaves_no_ray_behind(bare_environment: dict[str, str], home: Path) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", _HOLDS_A_CLUSTER, str(home)], env=bare_environment, stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    address = owner.stdout.readline().strip()
    assert address.startswith("http://127.0.0.1:")
    started = psutil.Process(owner.pid).children(recursive=True)
    assert len(started) > 5
    listening = {
        connection.laddr.ip
        for process in started
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening <= {"127.0.0.1", "::ffff:127.0.0.1"}
    os.kill(owner.pid, signal.SIGKILL)
    owner.wait()
    owner.stdout.close()
    deadline = time.monotonic() + 40
    while time.monotonic() < deadline and any(process.is_running() for process in started):
        time.sleep(0.5)
    assert [process for process in started if process.is_running()] == []
