"""Who may come in: another user of this machine may not, nor a page of elsewhere; who holds the token may."""

import contextlib
import json
import os
import re
import subprocess
import sys
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest

from .user import User

_AS_ROOT = pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
_UUID = "00000000-0000-0000-0000-000000000000"
_MLFLOW = (
    *("/", "/#/experiments", "/index.html", "/static-files/index.html", "/health", "/version", "/metrics", "/nosuch"),
    *("/graphql", "/get-artifact?run_uuid=x&path=y", "/model-versions/get-artifact?name=x&version=1&path=y"),
    *("/api/2.0/mlflow/experiments/search?max_results=1", "/ajax-api/2.0/mlflow/experiments/search?max_results=1"),
    *("/api/2.0/mlflow-artifacts/artifacts", "/ajax-api/2.0/mlflow-artifacts/artifacts"),
    *("/ajax-api/3.0/mlflow/server-info", "/api/3.0/mlflow/traces/search", "/v1/traces", "/gateway/x/invocations"),
    *("/ajax-api/2.0/mlflow/upload-artifact?run_uuid=x&path=y", "/ajax-api/3.0/mlflow/assistant/config"),
)
_RAY = ("/api/jobs/", "/api/version", "/api/cluster_status", "/nodes?view=summary", "/logs", "/api/v0/tasks", "/events")
_SOCKETS = (
    *("/api/events/in", "/api/events/out", "/api/logs/out", "/api/task_runs/subscriptions/scheduled"),
    "/api/work_pools/pairflow/workers/connect",
)


def _port(url: str) -> int:
    port = urlsplit(url).port
    assert port is not None
    return port


def _requests_of_prefect(user: User) -> list[dict[str, Any]]:
    """All that its API has, by its own description, but what says whether it lives."""
    with_body = {"port": _port(user.prefect), "body": "{}"}
    routes = user.ask("openapi.json")["paths"]
    return [
        {**with_body, "method": method.upper(), "path": "/api" + re.sub(r"\{[^}]*\}", _UUID, path.removeprefix("/api"))}
        for path, methods in routes.items()
        for method in methods
        if (path.removeprefix("/api"), method) not in {("/health", "get"), ("/ready", "get")}
    ]


def _stranger(user: User, **todo: list[Any]) -> dict[str, Any]:
    """What another user of this machine gets."""
    everything = {"home": str(user.home), "asked": [], "talked": [], "opened": [], "connected": []} | todo
    program = Path(__file__).with_name("stranger.py")
    environment = {"PATH": os.environ["PATH"]}
    done = subprocess.run(
        [sys.executable, str(program)],
        input=json.dumps(everything),
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    assert said["uid"] == 65_534
    return said


@_AS_ROOT
def test_another_user_is_answered_nowhere(user: User) -> None:
    prefect = _requests_of_prefect(user)
    assert len(prefect) > 150
    mlflow = [
        {"port": _port(user.mlflow), "method": method, "path": path, "body": "{}"}
        for path in _MLFLOW
        for method in ("GET", "POST", "DELETE")
    ]
    ray = [{"port": _port(user.ray), "method": "GET", "path": path} for path in _RAY]
    ray += [{"port": _port(user.ray), "method": "POST", "path": "/api/jobs/", "body": '{"entrypoint": "id"}'}]
    wrong = [
        {**each, "method": "GET", "headers": {"Authorization": given}}
        for each in (mlflow[3], prefect[0], ray[0])
        for given in ("Basic cGFpcmZsb3c6", "Basic Og==", "Bearer", "Bearer x", f"Bearer {'0' * 64}")
    ]
    asked = prefect + mlflow + ray + wrong
    answers = _stranger(user, asked=asked)["asked"]
    refused = {HTTPStatus.UNAUTHORIZED}
    unlike = [(each["path"], status) for each, status in zip(asked, answers, strict=True) if status not in refused]
    # Ray tells a token that is wrong from none at all.
    assert [each for each in unlike if each != ("/api/jobs/", HTTPStatus.FORBIDDEN)] == []


@_AS_ROOT
def test_sockets_of_prefect_want_the_token_too(user: User) -> None:
    talked = [
        {"port": _port(user.prefect), "path": path, "prefect": prefect, "headers": {}, "messages": messages}
        for path in _SOCKETS
        for prefect, messages in (
            (False, [{"type": "filter", "filter": {}}]),
            (True, [{"type": "auth", "token": None}, {"type": "filter", "filter": {}}]),
            (True, [{"type": "auth", "token": "pairflow:"}, {"type": "filter", "filter": {}}]),
            (True, [{"type": "filter", "filter": {}}]),
        )
    ]
    assert {*_stranger(user, talked=talked)["talked"]} <= {"closed", "refused: 403"}
    # The owner gets in, but not from a page of elsewhere.
    token = {"type": "auth", "token": f"pairflow:{user.run('token').stdout.strip()}"}
    own, foreign = ({"Origin": each} for each in (user.prefect, "http://evil.example"))
    common = {"port": _port(user.prefect), "path": "/api/events/out", "prefect": True, "messages": [token]}
    talked = [{**common, "headers": headers} for headers in ({}, own, foreign)]
    said = _stranger(user, talked=talked)["talked"]
    assert ["auth_success" in said[0], "auth_success" in said[1], said[2]] == [True, True, "refused: 403"]


@_AS_ROOT
def test_files_and_sockets_are_closed_to_another_user(user: User) -> None:
    files = ["prefect/prefect.db", "mlflow/mlflow.db", "ray/token", "service/servers.json", "service/logs/prefect.log"]
    assert all((user.home / each).is_file() for each in files)
    sockets = {each.laddr for one in user.processes() for each in one.net_connections("unix") if each.laddr}
    paths = sorted(each for each in map(str, sockets) if each.startswith("/"))
    assert len(paths) > 2  # the supervisor's, the raylet's, the object store's
    said = _stranger(user, opened=[".", *files], connected=paths)
    assert {*said["opened"]} == {"PermissionError"}
    assert {*said["connected"]} <= {"PermissionError", "FileNotFoundError"}
    assert (user.home / "ray" / "token").stat().st_mode & 0o777 == 0o600
    assert user.home.stat().st_mode & 0o777 == 0o700


@_AS_ROOT
def test_pages_of_elsewhere_are_not_answered_though_they_come_with_the_credential(user: User) -> None:
    asked = [
        {"port": _port(url), "method": method, "path": path, "headers": user.credential(name) | foreign, "body": "{}"}
        for url, name, path in (
            (user.prefect, "prefect", "/api/flows/filter"),
            (user.prefect, "prefect", "/"),
            (user.mlflow, "mlflow", "/ajax-api/2.0/mlflow/experiments/search"),
            (user.mlflow, "mlflow", "/graphql"),
            (user.mlflow, "mlflow", "/"),
        )
        for method in ("GET", "POST", "OPTIONS")
        for foreign in (
            {"Host": "evil.example"},
            {"Host": f"evil.example:{_port(url)}"},
            {"Origin": "http://evil.example"},
            {"Origin": "http://127.0.0.1:9"},
            {"Origin": "null"},
        )
    ]
    assert {*_stranger(user, asked=asked)["asked"]} == {HTTPStatus.FORBIDDEN}


def test_who_holds_the_token_gets_everywhere(user: User) -> None:
    asked = [(user.mlflow, "mlflow", path) for path in ("/", "/health", *_MLFLOW[-10:-9])]
    asked += [(user.mlflow, "mlflow", "/ajax-api/2.0/mlflow/experiments/search?max_results=1")]
    asked += [(user.ray, "ray", path) for path in _RAY[:4]]
    asked += [(user.prefect, "prefect", path) for path in ("/", "/api/admin/version", "/api/health")]
    for url, name, path in asked:
        assert user.get(f"{url}{path}", name) == HTTPStatus.OK, path


def test_exports_of_up_open_both_histories_to_a_notebook(user: User) -> None:
    said = user.run("up").stdout
    exports = [line for line in said.splitlines() if line.strip().startswith("export ")]
    code = (
        "from mlflow import MlflowClient; from prefect.client.orchestration import get_client\n"
        "print(len(MlflowClient().search_experiments()), get_client(sync_client=True).api_healthcheck(), "
        "len(get_client(sync_client=True).read_flows()))"
    )
    shell = "\n".join([*exports, f"exec {sys.executable} -c '{code}'"])
    bare = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": str(user.home)}
    bare |= {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    done = subprocess.run(["bash", "-euc", shell], env=bare, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    experiments, health, flows = done.stdout.split()
    assert int(experiments) >= 1
    assert (health, int(flows) >= 7) == ("None", True)
    token = user.run("token").stdout.strip()
    assert token not in said


def test_a_shell_of_another_home_is_told_what_lacks(user: User, tmp_path: Path) -> None:
    other = {"PAIRFLOW_HOME": str(tmp_path / "other"), "PREFECT_API_URL": f"{user.prefect}/api"}
    done = user.run("pair", "--dataset", "nci", "--max-rows", 40, **other)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "answers 401" in done.stderr
    assert "PREFECT_API_AUTH_STRING" in done.stderr
    done = user.run("lineage", "nci", PAIRFLOW_HOME=str(tmp_path / "other"), MLFLOW_TRACKING_URI=user.mlflow)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "Sign in as pairflow, with what `pairflow token` prints" in done.stderr


def test_the_token_stands_nowhere(user: User) -> None:
    """But in its file: after a run neither on a command line, nor in logs, histories and artifacts."""
    run_id = user.start("pair", {"dataset": {"name": "nci", "max_rows": 40}, "coupling": {"num_steps": 3}})
    assert user.wait_for_state(run_id, "Completed", "Failed", "Crashed", timeout_s=400)["state_name"] == "Completed"
    token = (user.home / "ray" / "token").read_bytes().strip()
    encoded = user.credential("prefect")["Authorization"].removeprefix("Basic ").encode()
    places = set()
    for each in user.processes():
        with contextlib.suppress(psutil.NoSuchProcess):
            places.add(each.cwd())
    folders = {Path(place) for place in places if place.startswith("/tmp/pairflow-")}  # noqa: S108
    assert folders
    looked_at = [path for folder in (user.home, *folders) for path in folder.rglob("*") if path.is_file()]
    assert len(looked_at) > 30
    found = [path for path in looked_at if any(each in path.read_bytes() for each in (token, encoded))]
    assert found == [user.home / "ray" / "token"]
    for each in psutil.process_iter():
        try:
            words = " ".join(each.cmdline())
        except psutil.Error:
            continue
        assert token.decode() not in words
        assert encoded.decode() not in words
