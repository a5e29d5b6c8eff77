"""When Prefect's temporary server is told to start before Prefect is there to say whether it is wanted."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flows.command import temporary_prefect
from flows.home.environment import prepare_environment
from flows.home.settings import Settings

_NOTHING = "# nothing of Prefect's\n"


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """A newcomer's, in an empty folder, with an environment that is ready."""
    before = dict(os.environ)
    for name in [name for name in before if name.startswith(("PAIRFLOW_", "PREFECT_", "MLFLOW_", "RAY_"))]:
        del os.environ[name]
    os.environ["PAIRFLOW_HOME"] = str(tmp_path / "home")
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.delitem(sys.modules, "prefect", raising=False)
    prepare_environment(Settings.read())
    yield Settings.read()
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The environments of servers that were told to start, none of which is."""
    asked: list[Any] = []

    def start(*_: str, environment: Any) -> object:
        asked.append(dict(environment))
        return SimpleNamespace()

    monkeypatch.setattr(temporary_prefect, "start_holder", start)
    monkeypatch.setattr(temporary_prefect.atexit, "register", lambda *_: None)
    return asked


def test_where_nothing_speaks_against_it(settings: Settings, started: list[Any]) -> None:
    Path("pyproject.toml").write_text("[tool.ruff]\n" + _NOTHING)
    begun = temporary_prefect.begin(settings)
    assert begun is not None
    (environment,) = started
    assert environment["PREFECT_HOME"] == str(settings.home / "prefect")
    assert environment["PREFECT_SERVER_API_AUTH_STRING"] == environment["PREFECT_API_AUTH_STRING"]
    assert begun.patience_s == 300
    assert begun.log.parent == settings.home / "prefect"


def _variable(name: str, value: str) -> Callable[[Settings], None]:
    return lambda settings: os.environ.__setitem__(name, value)


def _file(name: str, text: str) -> Callable[[Settings], None]:
    def write(settings: Settings) -> None:
        path = Path(name) if not name.startswith("HOME/") else settings.home / name.removeprefix("HOME/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    return write


@pytest.mark.parametrize(
    "other",
    [
        _variable("PREFECT_API_URL", "http://127.0.0.1:9/api"),
        _variable("PREFECT_PROFILE", "mine"),
        _variable("PREFECT_SERVER_ALLOW_EPHEMERAL_MODE", "false"),
        _file("prefect.toml", _NOTHING),
        _file("pyproject.toml", "[tool.prefect.api]\n"),
        _file(".env", "PREFECT_API_URL=http://127.0.0.1:9/api\n"),
        _file("HOME/prefect/profiles.toml", _NOTHING),
        lambda settings: sys.modules.__setitem__("prefect", sys),
    ],
)
def test_where_prefect_may_be_told_otherwise(
    settings: Settings, started: list[Any], other: Callable[[Settings], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "prefect", sys.modules.get("prefect", sys))  # to be put back
    monkeypatch.delitem(sys.modules, "prefect")
    other(settings)
    assert temporary_prefect.begin(settings) is None
    assert started == []


@pytest.mark.parametrize(
    ("said", "again"),
    [
        ('File "/x/alembic/runtime/migration.py"\nOperationalError: duplicate column name: version', True),
        ("sqlite3.OperationalError: database is locked", True),
        ("ModuleNotFoundError: No module named 'prefect'", False),
    ],
)
def test_which_failed_starts_are_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, again: bool
) -> None:
    """The first is how one of two ends that make the tables of a new home at once; started again it finds them made."""
    asked: list[Callable[[str], bool]] = []
    monkeypatch.setattr(temporary_prefect, "hold", lambda *_, again, **__: asked.append(again))
    temporary_prefect._hold(1, str(tmp_path / "log"), 1.0)
    assert asked[0](said) is again
