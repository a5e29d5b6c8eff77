"""MLflow's database of a home, whoever is killed while it is made or migrated, and however many begin at once."""

import contextlib
import logging
import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic import command
from alembic.script import ScriptDirectory
from mlflow import MlflowClient
from mlflow.store.db import utils as theirs

from flows.home.settings import Settings
from flows.lineage import database
from flows.lineage.errors import LineageError
from flows.lineage.tracking import Lineage

from . import makers
from .makers import Makers

_KILLED = -signal.SIGKILL
_EXPERIMENT = "INSERT INTO experiments (name, lifecycle_stage, workspace) VALUES ('pairflow-nci', 'active', 'default')"


@pytest.fixture(scope="module")
def make() -> Iterator[Makers]:
    with makers.running() as ask:
        yield ask


def _ask(place: Path, query: str) -> list[tuple[object, ...]]:
    with contextlib.closing(sqlite3.connect(place)) as connection, connection:
        return connection.execute(query).fetchall()


def _experiments(place: Path) -> list[object]:
    return [name for (name,) in _ask(place, "SELECT name FROM experiments ORDER BY experiment_id")]


def _files(home: Path) -> list[str]:
    return sorted(path.name for path in (home / "mlflow").iterdir())


def test_whoever_is_killed_the_next_one_has_it_whole(make: Makers, tmp_path: Path) -> None:
    for moment in ("statement 1", "statement 250", "rename 1"):
        assert make(tmp_path, moment) == [_KILLED], moment
        assert "mlflow.db" not in _files(tmp_path)
    assert ".mlflow.db.draft" in _files(tmp_path)
    for ending in ("", "-journal"):  # as of one that was killed while it wrote the file
        (tmp_path / "mlflow" / f".mlflow.db.draft{ending}").write_bytes(b"half")
    assert make(tmp_path, "never") == [0]
    assert _experiments(tmp_path / "mlflow" / "mlflow.db") == ["Default", "pairflow-nci"]
    assert _files(tmp_path) == ["mlflow.db", "mlflow.db.lock"]


def test_several_at_once_make_one(make: Makers, tmp_path: Path) -> None:
    first, *others = make(tmp_path, "statement 100", "never", "never")
    assert first in (0, _KILLED)  # if it is the one that makes it
    assert others == [0, 0]
    assert _experiments(tmp_path / "mlflow" / "mlflow.db") == ["Default", "pairflow-nci"]
    assert _files(tmp_path) == ["mlflow.db", "mlflow.db.lock"]


@pytest.mark.parametrize("statement", [16, 430])
def test_what_an_earlier_release_left_half_made_is_set_aside(make: Makers, tmp_path: Path, statement: int) -> None:
    """After the first migrations, and before the last; MLflow by itself fails on it for ever."""
    assert make(tmp_path, f"statement {statement}", how="MLflow's") == [_KILLED]
    place = tmp_path / "mlflow" / "mlflow.db"
    left = _ask(place, "SELECT name FROM sqlite_master")  # which also undoes what was not committed
    assert make(tmp_path, "never", "never") == [0, 0]
    assert _experiments(place) == ["Default", "pairflow-nci"]
    assert _files(tmp_path) == ["mlflow.db", "mlflow.db.half-made-1", "mlflow.db.lock"]
    assert _ask(tmp_path / "mlflow" / "mlflow.db.half-made-1", "SELECT name FROM sqlite_master") == left


def test_the_log_of_a_file_that_is_gone_is_not_taken_for_one_of_the_new(tmp_path: Path) -> None:
    place = tmp_path / "mlflow" / "mlflow.db"
    place.parent.mkdir()
    with contextlib.closing(sqlite3.connect(place)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE theirs (n)")
        log = place.with_name("mlflow.db-wal").read_bytes()
    place.unlink()
    place.with_name("mlflow.db-wal").write_bytes(log)
    Lineage(Settings(home=tmp_path))
    assert _experiments(place) == ["Default"]
    assert place.with_name("mlflow.db.half-made-1-wal").read_bytes() == log


def test_which_migration_is_the_last_is_asked_once_of_a_release(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    last = theirs._get_latest_schema_revision()
    monkeypatch.setattr(database, "_last_revision", lambda: asked.append("") or last)
    place = tmp_path / "mlflow.db"
    database.make_whole(place, tmp_path)  # makes it
    database.make_whole(place, tmp_path)  # asks, and marks it
    asked.clear()
    database.make_whole(place, tmp_path)
    assert asked == []
    monkeypatch.setattr(database, "VERSION", "another")
    database.make_whole(place, tmp_path)
    assert len(asked) == 1
    _ask(place, "UPDATE alembic_version SET version_num = 'of a later release'")
    assert not database._is_ready(place)  # whatever the mark says


class TestHistory:
    """One that an earlier MLflow wrote: with the last migration but one."""

    @pytest.fixture
    def place(self, tmp_path: Path) -> Path:
        place = tmp_path / "mlflow" / "mlflow.db"
        place.parent.mkdir()
        url = f"sqlite:///{place}"
        engine = theirs.create_sqlalchemy_engine_with_retry("sqlite://")
        theirs.InitialBase.metadata.create_all(engine)
        config = theirs._get_alembic_config(url)
        before = ScriptDirectory.from_config(config).get_revision("head").down_revision
        with engine.begin() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, str(before))
        with engine.begin() as connection, contextlib.closing(sqlite3.connect(place)) as file:
            connection.exec_driver_sql(_EXPERIMENT)
            connection.connection.driver_connection.commit()
            connection.connection.driver_connection.backup(file)
        engine.dispose()
        return place

    def test_is_as_it_was_until_it_is_up_to_date(self, make: Makers, tmp_path: Path, place: Path) -> None:
        before = place.read_bytes()
        assert make(tmp_path, "statement 2") == [_KILLED]
        assert place.read_bytes() == before
        with contextlib.closing(sqlite3.connect(place)) as opened_before:
            opened_before.execute("PRAGMA journal_mode = WAL")
            assert make(tmp_path, "never", "never") == [0, 0]
            revision = opened_before.execute("SELECT version_num FROM alembic_version").fetchall()
            assert revision == [(theirs._get_latest_schema_revision(),)]
            assert opened_before.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert "pairflow-nci" in _experiments(place)
        assert _files(tmp_path) == ["mlflow.db", "mlflow.db.lock"]
        assert MlflowClient(f"sqlite:///{place}").get_experiment_by_name("pairflow-nci") is not None

    def test_that_was_half_migrated_is_named_and_left(self, tmp_path: Path, place: Path) -> None:
        """As MLflow leaves it that is killed: tables of a migration that it does not know of."""
        _ask(place, "UPDATE alembic_version SET version_num = '181f10493468'")
        before = place.read_bytes()
        with pytest.raises(
            LineageError, match=r"cannot be brought up to date: .*already exists; it is as it was\. Put"
        ):
            Lineage(Settings(home=tmp_path))
        assert place.read_bytes() == before
        assert _files(tmp_path) == ["mlflow.db", "mlflow.db.lock"]


def test_that_of_a_later_mlflow_is_named_and_left(tmp_path: Path) -> None:
    place = tmp_path / "mlflow" / "mlflow.db"
    Lineage(Settings(home=tmp_path)).experiment("nci")
    _ask(place, "UPDATE alembic_version SET version_num = 'abcdefabcdef'")
    before = _experiments(place)
    with pytest.raises(LineageError, match="written by a later MLflow than"):
        Lineage(Settings(home=tmp_path))
    assert _experiments(place) == before
    assert _files(tmp_path) == ["mlflow.db", "mlflow.db.lock"]


def test_what_is_no_database_is_named_and_left(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    place = tmp_path / "x.db"
    place.write_bytes(b"mine" * 1000)
    with caplog.at_level(logging.INFO), pytest.raises(LineageError, match="is no database of MLflow's"):
        Lineage(Settings(home=tmp_path, mlflow_uri=f"sqlite:///{place}"))
    assert place.read_bytes() == b"mine" * 1000
