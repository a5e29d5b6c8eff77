"""Prefect's tables as we lay them: what its migrations make, once, whole, and in nobody's place."""

import contextlib
import importlib.metadata
import os
import sqlite3
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from flows.service import prefect_tables

_FILE = Path(prefect_tables.__file__).with_suffix(".sql")
_MIGRATE = """
import asyncio
from prefect.server.database import provide_database_interface
asyncio.run(provide_database_interface().create_db())
"""


def _migrate(home: Path) -> None:
    environment = {"PREFECT_HOME": str(home), "DO_NOT_TRACK": "true"}
    subprocess.run([sys.executable, "-c", _MIGRATE], env=environment, check=True, timeout=300)


def _written(home: Path) -> str:
    with contextlib.closing(sqlite3.connect(home / "prefect.db")) as connection:
        return prefect_tables.written(importlib.metadata.version("prefect"), connection)


def _statements(text: str) -> list[list[str]]:
    """Without the orders of indices and of a table's constraints, which the migrations keep in sets."""
    return sorted(sorted(line.strip(" \t,") for line in each.splitlines()) for each in text.split(";\n"))


def test_are_those_that_its_migrations_make(tmp_path: Path) -> None:
    """Write them anew with `python tests/service/test_prefect_tables.py` where Prefect has another release."""
    _migrate(tmp_path)
    assert _statements(_written(tmp_path)) == _statements(_FILE.read_text(encoding="utf-8"))


def test_its_migrations_have_nothing_to_add(tmp_path: Path) -> None:
    assert prefect_tables.lay({"PREFECT_HOME": str(tmp_path / "new")})
    before = _written(tmp_path / "new")
    _migrate(tmp_path / "new")
    assert _written(tmp_path / "new") == before == _FILE.read_text(encoding="utf-8")
    assert not [*(tmp_path / "new").glob(".prefect*")]


def test_what_is_there_stays(tmp_path: Path) -> None:
    (tmp_path / "prefect.db").write_bytes(b"of somebody")
    assert not prefect_tables.lay({"PREFECT_HOME": str(tmp_path)})
    assert (tmp_path / "prefect.db").read_bytes() == b"of somebody"


def test_the_log_of_a_file_that_is_gone_is_not_written_over_the_new(tmp_path: Path) -> None:
    """SQLite would: the rows of before would be in it, or neither file could be read."""
    for ending in ("-wal", "-journal"):
        place = tmp_path / f"home{ending}" / f"prefect.db{ending}"
        place.parent.mkdir()
        place.write_bytes(b"of somebody")
        assert not prefect_tables.lay({"PREFECT_HOME": str(place.parent)})
        assert [each.name for each in place.parent.iterdir()] == [place.name]


def test_one_of_many_that_begin_together_lays_them(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        laid = [*pool.map(lambda _: prefect_tables.lay({"PREFECT_HOME": str(tmp_path)}), range(8))]
    assert sum(laid) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["prefect.db"]


@pytest.mark.parametrize(
    "name",
    ["PREFECT_SERVER_DATABASE_CONNECTION_URL", "PREFECT_API_DATABASE_CONNECTION_URL", "PREFECT_SERVER_DATABASE_NAME"],
)
def test_not_where_the_history_lies_elsewhere(tmp_path: Path, name: str) -> None:
    assert not prefect_tables.lay({"PREFECT_HOME": str(tmp_path), name: "elsewhere"})
    assert not [*tmp_path.iterdir()]


def test_not_under_another_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda _: "3.9.0")
    assert not prefect_tables.lay({"PREFECT_HOME": str(tmp_path)})
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("fails", ["connect", "link"])
def test_what_cannot_be_laid_is_left_to_prefect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str) -> None:
    def fail(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(sqlite3 if fails == "connect" else os, fails, fail)
    assert not prefect_tables.lay({"PREFECT_HOME": str(tmp_path)})
    assert not [*tmp_path.iterdir()]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        _migrate(Path(folder))
        _FILE.write_text(_written(Path(folder)), encoding="utf-8")
