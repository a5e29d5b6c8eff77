"""The parts of the service that need no server."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from flows.home.addresses import OWNER_VARIABLE, Servers, announce, running_servers, service_folder, withdraw
from flows.home.environment import prepare_environment
from flows.home.private import close_home, private_folder
from flows.home.settings import Settings
from flows.home.token import access_token, read_token
from flows.service import health, stack
from flows.service.remains import end, processes_of
from flows.service.sockets import runtime_folder, supervisor_socket
from flows.service.supervision import ProgramState, ServiceError, Supervisor
from pairflow.errors import SpecError

from ..ports import free_port


def _servers(**changes: object) -> Servers:
    known = {
        "prefect_url": "http://127.0.0.1:14200",
        "mlflow_url": "http://127.0.0.1:15000",
        "ray_url": "http://127.0.0.1:18265",
        "supervisor_pid": os.getpid(),
        "supervisor_started": psutil.Process().create_time(),
    }
    return Servers.model_validate(known | changes)


@pytest.fixture
def served_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home whose servers are announced to run under this process."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PAIRFLOW_", "PREFECT_", "RAY_", "MLFLOW_"))
    }
    monkeypatch.setattr("os.environ", kept | {"PAIRFLOW_HOME": str(tmp_path)})
    service_folder(tmp_path).mkdir()
    announce(tmp_path, _servers())
    return tmp_path


def test_settings_are_those_of_running_servers(served_home: Path) -> None:
    settings = Settings.read()
    assert (settings.ray_address, settings.tracking_uri) == ("http://127.0.0.1:18265", "http://127.0.0.1:15000")
    assert (settings.prefect_port, settings.mlflow_port, settings.ray_port) == (14200, 15000, 18265)
    withdraw(served_home)
    assert Settings.read().ray_address is None


def test_what_the_user_names_wins(served_home: Path) -> None:
    os.environ["RAY_ADDRESS"] = "http://elsewhere:8265"
    os.environ["PREFECT_API_URL"] = "http://elsewhere/api"
    settings = Settings.read()
    assert settings.ray_address == "http://elsewhere:8265"
    prepare_environment(settings)
    assert os.environ["PREFECT_API_URL"] == "http://elsewhere/api"
    assert "RAY_AUTH_MODE" not in os.environ  # our token is nobody else's business


_PASSWORDS = ("PREFECT_API_AUTH_STRING", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")


@pytest.mark.parametrize(
    ("named", "wanted"),
    [
        ({}, {*_PASSWORDS}),
        ({"PREFECT_API_URL": "http://localhost:14200/api/"}, {*_PASSWORDS}),
        ({"MLFLOW_TRACKING_URI": "http://127.0.0.1:15000/"}, {*_PASSWORDS}),
        ({"PREFECT_API_URL": "http://elsewhere:14200/api"}, {*_PASSWORDS[1:]}),
        ({"PREFECT_API_URL": "https://127.0.0.1:14200/api"}, {*_PASSWORDS[1:]}),
        ({"PREFECT_API_URL": "http://127.0.0.1:14201/api"}, {*_PASSWORDS[1:]}),
        ({"PREFECT_API_URL": "http://127.0.0.1:port/api"}, {*_PASSWORDS[1:]}),
        ({"MLFLOW_TRACKING_URI": "http://127.0.0.1:15000@elsewhere"}, {_PASSWORDS[0]}),
        ({"MLFLOW_TRACKING_URI": "sqlite:////tmp/m.db"}, {_PASSWORDS[0]}),
    ],
)
def test_the_credential_is_told_to_our_own_servers_alone(
    served_home: Path, named: dict[str, str], wanted: set[str]
) -> None:
    os.environ.update(named)
    prepare_environment(Settings.read())
    assert {name for name in _PASSWORDS if name in os.environ} == wanted


def test_servers_that_ask_nobody_are_told_nothing(served_home: Path) -> None:
    announce(served_home, _servers(auth=False))
    os.environ["MLFLOW_TRACKING_USERNAME"] = "mine"
    settings = Settings.read()
    assert settings.auth == "off"
    prepare_environment(settings)
    assert {name: os.environ.get(name) for name in _PASSWORDS} == dict.fromkeys(_PASSWORDS) | {_PASSWORDS[1]: "mine"}


def test_a_token_that_others_could_read_is_closed_and_a_damaged_one_refused(tmp_path: Path) -> None:
    path = access_token(tmp_path)
    token = read_token(path)
    assert (path.parent.stat().st_mode & 0o777, path.stat().st_mode & 0o777) == (0o700, 0o600)
    path.chmod(0o644)
    assert read_token(access_token(tmp_path)) == token
    assert path.stat().st_mode & 0o777 == 0o600
    for damaged in (b"", b"\n", b"short", b"\xff" * 64, b"a b" * 20):
        path.write_bytes(damaged)
        with pytest.raises(SpecError, match="token"):
            read_token(path)


def test_a_home_is_closed_and_that_of_another_user_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o775)
    assert close_home(tmp_path)
    assert tmp_path.stat().st_mode & 0o777 == 0o700
    assert not close_home(tmp_path)
    monkeypatch.setattr("os.getuid", lambda: tmp_path.stat().st_uid + 1)
    with pytest.raises(SpecError, match="PAIRFLOW_AUTH=off"):
        close_home(tmp_path)


@pytest.mark.parametrize("changes", [{"supervisor_started": 1.0}, {"supervisor_pid": 2**22 + 1}])
def test_servers_that_are_gone_do_not_count(served_home: Path, changes: dict[str, float]) -> None:
    announce(served_home, _servers(**changes))
    assert running_servers(served_home) is None


def test_a_file_that_is_none_does_not_count(served_home: Path) -> None:
    (service_folder(served_home) / "servers.json").write_text("{")
    assert running_servers(served_home) is None


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077, 0o177])
def test_a_private_folder_whatever_the_mask(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        assert private_folder(tmp_path / "run").stat().st_mode & 0o777 == 0o700
    finally:
        os.umask(before)


def test_a_folder_that_others_could_read_is_closed_and_one_that_they_could_fill_refused(tmp_path: Path) -> None:
    (tmp_path / "read").mkdir(mode=0o755)
    assert private_folder(tmp_path / "read").stat().st_mode & 0o777 == 0o700
    (tmp_path / "filled").mkdir()
    (tmp_path / "filled").chmod(0o777)
    (tmp_path / "link").symlink_to(tmp_path / "read")
    for place in ("filled", "link"):
        with pytest.raises(SpecError, match="only you"):
            private_folder(tmp_path / place)


def test_sockets_are_a_function_of_the_home_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    homes = [tmp_path, tmp_path / ("deep" * 30)]
    before = [(runtime_folder(home), supervisor_socket(home)) for home in homes]
    for name in ("TMPDIR", "HOME", "XDG_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "elsewhere"))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.chdir("/")
    assert [(runtime_folder(home), supervisor_socket(home)) for home in homes] == before
    assert all(len(os.fsencode(path)) < 100 for pair in before for path in pair)
    assert before[0] != before[1]


def test_a_live_supervisor_is_found_without_any_file(tmp_path: Path) -> None:
    code = "import time; time.sleep(60)"
    words = [sys.executable, "-c", code, "-m", "supervisor.supervisord"]
    with subprocess.Popen(words, env=os.environ | {OWNER_VARIABLE: str(tmp_path)}) as process:
        try:
            deadline = time.monotonic() + 20
            while Supervisor(tmp_path).pid() is None and time.monotonic() < deadline:
                time.sleep(0.05)
            assert Supervisor(tmp_path).pid() == process.pid
            assert {each.state for each in Supervisor(tmp_path).states()} == {"STOPPED"}
            assert Supervisor(tmp_path / "other").pid() is None
        finally:
            process.kill()
    assert Supervisor(tmp_path).pid() is None


def test_remains_of_one_home_only(tmp_path: Path) -> None:
    def start(home: str, **more: str) -> "subprocess.Popen[bytes]":
        environment = os.environ | {OWNER_VARIABLE: home} | more
        return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], env=environment)

    ours, job, other = start(str(tmp_path)), start(str(tmp_path), A_JOB="1"), start("/elsewhere")
    try:
        assert [each.pid for each in processes_of(tmp_path, with_variable="A_JOB")] == [job.pid]
        assert {each.pid for each in processes_of(tmp_path)} == {ours.pid, job.pid}
        assert end(processes_of(tmp_path)) == []
        assert other.poll() is None
    finally:
        for each in (ours, job, other):
            each.kill()
            each.wait()


def test_holder_of_a_port() -> None:
    code = "import socket, time; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True)"
    holder = subprocess.Popen([sys.executable, "-c", f"{code}; time.sleep(600)"], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    try:
        port = int(holder.stdout.readline())
        found = health.port_holder(port)
        assert found is not None
        assert (found.pid, found.port) == (holder.pid, port)
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    assert health.port_holder(port) is None


def test_a_port_taken_while_the_servers_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said at once and by whom: the server that cannot have it would be started again until the patience ends."""
    supervisor = Supervisor(tmp_path)
    ended = ProgramState("prefect", "BACKOFF", 0, 0)
    monkeypatch.setattr(supervisor, "states", lambda: [ended])
    with socket.create_server(("127.0.0.1", free_port())) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ServiceError, match=f"port {port}, for prefect, is taken by process {os.getpid()} "):
            stack.wait_until_well(["prefect"], Settings(home=tmp_path, prefect_port=port), supervisor, print)
