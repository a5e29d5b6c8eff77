"""`pairflow up` as a user has it, once for the session, on free ports and in a home of its own."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from ..ports import free_port
from .user import User

# What the developer may have set, and what must not leak into a test.
_OWN_VARIABLES = ("PAIRFLOW_", "PREFECT_", "RAY_", "MLFLOW_")


def environment_of(home: Path) -> dict[str, str]:
    """Of somebody with this home, and with free ports."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(_OWN_VARIABLES)}
    return inherited | {
        "PAIRFLOW_HOME": str(home),
        "PAIRFLOW_PREFECT_PORT": str(free_port()),
        "PAIRFLOW_MLFLOW_PORT": str(free_port()),
        "PAIRFLOW_RAY_PORT": str(free_port()),
        "PAIRFLOW_OBJECT_STORE_MB": "200",
        # One thread a job: the machine that runs the tests has other things to do.
        "PAIRFLOW_THREADS_PER_JOB": "1",
        # Prefect's worker asks for runs every ten seconds unless it is told otherwise.
        "PREFECT_WORKER_QUERY_SECONDS": "2",
        # One GPU as far as Ray counts; what runs "on" it finds none and computes on the CPU.
        "RAY_OVERRIDE_RESOURCES": '{"GPU": 1}',
        "COLUMNS": "200",
        "NO_COLOR": "1",
    }


@pytest.fixture(scope="session")
def service_environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    home = tmp_path_factory.mktemp("served")
    home.chmod(0o755)  # as a folder that was there before
    return environment_of(home)


@pytest.fixture(scope="session")
def served(service_environment: dict[str, str]) -> Iterator[User]:
    """Somebody with a home, of which nothing is left at the end."""
    person = User(service_environment)
    yield person
    person.run("down")


@pytest.fixture(scope="module")
def user(served: User) -> User:
    """Somebody for whose home `pairflow up --detach` was said: by the first test file, or by that after a `down`."""
    if not served.processes():
        up = served.run("up", "--detach")
        assert up.returncode == 0, up.stderr
    return served


@pytest.fixture
def mlflow_client(user: User) -> Iterator[MlflowClient]:
    """This user's notebook."""
    with user.mlflow_client() as client:
        yield client


@pytest.fixture(autouse=True)
def _logs_are_read(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every test with servers ends by reading what they all wrote meanwhile."""
    yield
    if "user" in request.fixturenames:
        person: User = request.getfixturevalue("user")
        assert person.troubles() == []
