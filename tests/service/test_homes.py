"""Whose home it is: other shells, links and lost sockets find the service that runs, and never end it."""

import json
import os
from pathlib import Path

import pytest

from flows.home.addresses import running_servers, service_folder
from flows.service.sockets import supervisor_socket

from .user import User


def _supervisor(user: User) -> int:
    servers = running_servers(user.home)
    assert servers is not None
    return servers.supervisor_pid


@pytest.fixture
def shells(user: User, tmp_path: Path) -> dict[str, dict[str, str]]:
    """Environments of other shells of the same user."""
    link = tmp_path / "link"
    link.symlink_to(user.home)
    return {
        "another TMPDIR": {"TMPDIR": str(tmp_path)},
        "another HOME": {"HOME": str(tmp_path)},
        "by a link": {"PAIRFLOW_HOME": str(link)},
        "around a corner": {"PAIRFLOW_HOME": f"{user.home}/../{user.home.name}/."},
    }


def test_status_from_every_shell(user: User, shells: dict[str, dict[str, str]]) -> None:
    for shell, variables in shells.items():
        done = user.run("status", "--json", **variables)
        assert done.returncode == 0, (shell, done.stdout, done.stderr)
        assert json.loads(done.stdout)["home"] == str(user.home.resolve())


def test_up_joins_what_runs(user: User, shells: dict[str, dict[str, str]]) -> None:
    before = _supervisor(user)
    for shell in ("another TMPDIR", "by a link"):
        done = user.run("up", "--detach", **shells[shell])
        assert done.returncode == 0, (shell, done.stderr)
        assert "already running" in done.stderr
    assert _supervisor(user) == before


def test_without_socket_and_addresses(user: User) -> None:
    """As a cleaner leaves it that takes away what looks old."""
    before, socket = _supervisor(user), supervisor_socket(user.home)
    addresses = service_folder(user.home) / "servers.json"
    kept = addresses.read_bytes()
    aside = socket.with_suffix(".aside")
    os.rename(socket, aside)
    addresses.unlink()
    try:
        done = user.run("up", "--detach")
        assert done.returncode == 0, done.stderr
        assert json.loads(addresses.read_bytes()) == json.loads(kept)
        assert user.run("status").returncode == 0
    finally:
        os.rename(aside, socket)
    assert _supervisor(user) == before
