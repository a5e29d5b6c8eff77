"""deploy/compose.yaml: valid, and as closed as its comments say. `make test-containers` runs it."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from . import programs

_DEPLOY = Path(__file__).parents[2] / "deploy"
_FILE = _DEPLOY / "compose.yaml"
_SECRETS = ("POSTGRES_PASSWORD", "PREFECT_AUTH", "RAY_AUTH_TOKEN", "S3_ACCESS_KEY", "S3_SECRET_KEY")
_SERVICES: dict[str, Any] = yaml.safe_load(_FILE.read_text())["services"]
_ONCE = ("volumes", "setup")
_OURS = [name for name, each in _SERVICES.items() if "pairflow" in each["image"]]


def _config(tmp_path: Path, secrets: dict[str, str], *more: str) -> "subprocess.CompletedProcess[str]":
    compose = shutil.which("docker-compose")
    if compose is None:
        pytest.skip("no docker-compose: apt-get install docker-compose (1.29 of Debian does)")
    (tmp_path / "env").write_text("".join(f"{name}={value}\n" for name, value in secrets.items()))
    files = [word for name in (_FILE, *(_DEPLOY / each for each in more)) for word in ("-f", str(name))]
    return subprocess.run(
        [compose, "--env-file", str(tmp_path / "env"), *files, "config"],
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def _environment(service: dict[str, Any]) -> dict[str, str]:
    return dict(service.get("environment", {}))


def test_compose_reads_it_with_the_gpu_override_too(tmp_path: Path) -> None:
    done = _config(tmp_path, {name: f"value of {name}" for name in _SECRETS}, "compose.gpu.yaml")
    assert done.returncode == 0, done.stderr
    services = yaml.safe_load(done.stdout)["services"]
    assert set(services) == set(_SERVICES)
    assert services["ray-worker"]["image"] == services["ray-head"]["image"] == "pairflow:0.1.0-cuda"
    assert services["mlflow"]["environment"]["PGPASSWORD"] == "value of POSTGRES_PASSWORD"


def test_it_does_not_start_without_a_secret(tmp_path: Path) -> None:
    done = _config(tmp_path, {name: "" if name == "RAY_AUTH_TOKEN" else "given" for name in _SECRETS})
    assert done.returncode != 0
    assert "in deploy/.env" in done.stderr


def test_example_names_every_secret_and_gives_none() -> None:
    lines = (_DEPLOY / "compose.env.example").read_text().splitlines()
    assert [line for line in lines if not line.startswith("#")] == [f"{name}=" for name in _SECRETS]


@pytest.mark.parametrize("name", _SERVICES)
def test_service_is_closed(name: str) -> None:
    service = _SERVICES[name]
    assert re.fullmatch(r"[a-z/]+:v?\d+\.\d+[\w.-]*|\$\{PAIRFLOW_IMAGE:-pairflow:\d+\.\d+\.\d+-cpu\}", service["image"])
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["mem_limit"]
    assert service["cpus"]
    assert service.get("pids_limit", 0) > 0 or name == "volumes"
    assert "privileged" not in service
    assert "/var/run/docker.sock" not in str(service)
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    if name == "volumes":
        assert (service["user"], service["cap_add"], service["network_mode"]) == ("0:0", ["CHOWN"], "none")
    else:
        user, _, group = service["user"].partition(":")
        assert int(user) > 0
        assert int(group) > 0
        assert service["restart"] in ("unless-stopped", "on-failure")
        assert "data" in service["networks"]
    if name not in _ONCE:
        assert service["healthcheck"]["test"][0] == "CMD"


@pytest.mark.parametrize("name", _SERVICES)
def test_secrets_come_from_the_environment_alone(name: str) -> None:
    environment = _environment(_SERVICES[name])
    for variable, value in environment.items():
        if programs.SECRET.search(variable):
            assert re.fullmatch(r"\$\{\w+:\?[^}]+in deploy/\.env\}", value), variable
    said = [*_SERVICES[name].get("command", []), *_SERVICES[name].get("healthcheck", {}).get("test", [])]
    assert "${" not in " ".join(said)  # a command line is seen by `ps`
    assert programs.unknown_variables(environment) == []


@pytest.mark.parametrize("name", _OURS)
def test_commands_exist(name: str) -> None:
    service = _SERVICES[name]
    assert programs.problems(service["command"]) == []
    if "healthcheck" in service:
        assert programs.problems(service["healthcheck"]["test"][1:]) == []


def test_what_is_named_is_there() -> None:
    document = yaml.safe_load(_FILE.read_text())
    for service in _SERVICES.values():
        for mount in service.get("volumes", []):
            source, colon, _ = mount.partition(":")  # without: a volume of the container's own
            assert not colon or source in document["volumes"] or (_DEPLOY / source).is_file()
        assert set(service.get("networks", [])) <= set(document["networks"])
        for other, how in service.get("depends_on", {}).items():
            ends = how["condition"] == "service_completed_successfully"
            assert ends == (other in _ONCE)
    hosts = re.findall(r"(?:://|@|--address=)([a-z0-9-]+):(\d+)", _FILE.read_text())
    assert {host for host, _ in hosts} - {"pairflow"} <= {*_SERVICES, "127"}


def test_nothing_but_three_pages_is_published() -> None:
    published = {name: each["ports"] for name, each in _SERVICES.items() if "ports" in each}
    assert published == {
        "prefect": ["127.0.0.1:${PAIRFLOW_PREFECT_PORT:-4200}:4200"],
        "mlflow": ["127.0.0.1:${PAIRFLOW_MLFLOW_PORT:-5000}:5000"],
        "ray-head": ["127.0.0.1:${PAIRFLOW_RAY_PORT:-8265}:8265"],
    }


def test_keys_of_the_store_are_told_to_those_who_read_or_write_it() -> None:
    told = {name for name, each in _SERVICES.items() if "AWS_SECRET_ACCESS_KEY" in _environment(each)}
    assert told == {"ray-head", "ray-worker", "setup", "worker"}


@pytest.mark.parametrize("name", ["ray-head", "ray-worker"])
def test_a_node_of_ray_is_healthy_when_its_raylet_is(name: str) -> None:
    """A dashboard answers while the raylet beside it is dead, or not there yet."""
    service = _SERVICES[name]
    assert "--dashboard-agent-listen-port=52365" in service["command"]
    assert "52365/api/local_raylet_healthz" in service["healthcheck"]["test"][-1]
