"""MLflow's SQLite file: there whole, or not at all; and of this MLflow, or as it was.

MLflow makes its tables in some four hundred statements, most of which are committed by themselves, and can neither go
on from a part of them nor begin again; with the tables of an earlier release it does likewise. A process that was
killed within that second would leave a home on which every later command fails, and two that begin together would spoil
each other's. So one process at a time does it, beside the place of the file: a new one is renamed into it, a history is
written back in one transaction.

A new one holds the experiment "Default", which MLflow adds when it opens a database for the first time: who finds a row
among the experiments, and the last migration, need look no further.
"""

import contextlib
import functools
import itertools
import logging
import os
import sqlite3
import uuid
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from mlflow.version import VERSION

from flows.home.locks import in_turn
from flows.home.places import sqlite_url
from flows.lineage.errors import LineageError

_BESIDE = ("", "-journal", "-wal", "-shm")  # what SQLite reads with a file of that name
_MIGRATIONS_OWN = ("alembic_version", "workspaces")  # tables that hold a row before anybody has written one
_WRITTEN_BY_OTHERS = "PRAGMA data_version"
_PATIENCE_S = 60.0
_logger = logging.getLogger("pairflow.lineage")


def make_whole(place: Path, artifacts: Path) -> None:
    """Makes MLflow's database where there is none, or where a process was killed that made it.

    One with a history, of an earlier MLflow, is migrated. One that is ready is left alone; so is one that cannot be
    read now, for MLflow to say why.

    Args:
        place: the file.
        artifacts: folder for the files of MLflow's own experiment; those of ours say where theirs go.

    Raises:
        LineageError: it cannot be made or migrated, or is no database.
        SpecError: its folder cannot be written, or is on a filesystem without locks.
    """
    place = place.resolve()  # a link stays one
    if _is_ready(place):
        return

    def say(other: str) -> None:
        _logger.info("waiting for %s, which makes MLflow's database", other)

    with in_turn(place.parent, place.name, f"process {os.getpid()}", say):
        if not place.exists():
            _make(place, artifacts)
            return
        try:
            has_rows, revision = _look(place)
        except sqlite3.OperationalError:
            return
        except sqlite3.DatabaseError as error:
            raise LineageError(
                f"{place} is no database of MLflow's: {error}; put its backup there, or move it away to begin anew"
            ) from error
        if revision == _last_revision():
            return
        if not has_rows:
            _make(place, artifacts)
        elif revision is not None:
            _check_known(place, revision)
            _migrate(place)


@functools.cache
def _last_revision() -> str:
    """Of the migrations that this MLflow knows."""
    from mlflow.store.db.utils import _get_latest_schema_revision

    return str(_get_latest_schema_revision())


def _check_known(place: Path, revision: str) -> None:
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError
    from mlflow.store.db.utils import _get_alembic_config

    try:
        ScriptDirectory.from_config(_get_alembic_config(sqlite_url(place))).get_revision(revision)
    except CommandError:
        raise LineageError(
            f"MLflow's database {place} was written by a later MLflow than the {VERSION} of this environment (its last "
            f"migration is {revision}); use the environment that it was written in, or put a backup of before there"
        ) from None


def _is_ready(place: Path) -> bool:
    """Whether MLflow can open it as it is; False too where that cannot be read.

    Which is the last of MLflow's migrations is told by the files of all, a second's work: once known, the file's own
    mark for whoever uses it (SQLite's `user_version`) says that this MLflow has nothing to add to what is made.
    """
    made = "SELECT version_num FROM alembic_version WHERE EXISTS (SELECT 1 FROM experiments)"
    try:
        with contextlib.closing(_open(place, "ro")) as connection:
            revisions = [str(revision) for (revision,) in connection.execute(made)]
            (mark,) = connection.execute("PRAGMA user_version").fetchone()
    except sqlite3.Error:
        return False
    if len(revisions) != 1:
        return False
    if mark != (ready := _mark(revisions[0])):
        if revisions[0] != _last_revision():
            return False
        with contextlib.suppress(sqlite3.Error), contextlib.closing(_open(place, "rw", patience_s=0)) as connection:
            connection.execute(f"PRAGMA user_version = {ready}")
    return True


def _mark(revision: str) -> int:
    """Of a file whose last migration this is, and is that of this MLflow."""
    return zlib.crc32(f"{VERSION} {revision}".encode()) >> 1  # it holds 31 bits


def _look(place: Path) -> tuple[bool, str | None]:
    """Whether anybody has written a row, and the last migration that was made."""
    with contextlib.closing(_open(place, "rw")) as connection:  # for writing: what a kill left of a transaction goes
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        each = (f'SELECT 1 FROM "{name}" LIMIT 1' for name in tables - {*_MIGRATIONS_OWN})  # noqa: S608 - its own names
        has_rows = any(connection.execute(query).fetchone() is not None for query in each)
        made = "SELECT version_num FROM alembic_version"
        revision = connection.execute(made).fetchone() if "alembic_version" in tables else None
    return has_rows, None if revision is None else str(revision[0])


def _make(place: Path, artifacts: Path) -> None:
    """A new one; what lies there is of no use to MLflow and nobody's history."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    _set_aside(place)
    try:
        with _draft(place) as draft:
            # In memory no statement waits for a disk. A name of its own: MLflow keeps what it connects to, by its URL.
            store = SqlAlchemyStore(f"sqlite:///file:{uuid.uuid4().hex}?mode=memory&uri=true", artifacts.as_uri())
            with contextlib.closing(sqlite3.connect(draft)) as file, store.engine.connect() as memory:
                connection: Any = memory.connection.driver_connection
                connection.backup(file)
            store.engine.dispose()
            os.replace(draft, place)
    except (OSError, sqlite3.Error) as error:
        raise LineageError(
            f"MLflow's database {place} cannot be made: {error}; make room there, or name another file in "
            "MLFLOW_TRACKING_URI, and run the same again"
        ) from error


def _migrate(place: Path) -> None:
    """Brings a history up to date, or leaves it as it was; who has the file open sees the one or the other."""
    from mlflow.store.db.utils import _upgrade_db, create_sqlalchemy_engine_with_retry

    _logger.info("bringing MLflow's database %s up to date, which an earlier MLflow wrote", place)
    try:
        with _draft(place) as draft, contextlib.closing(_open(place, "rw")) as kept:
            before = kept.execute(_WRITTEN_BY_OTHERS).fetchone()
            with contextlib.closing(sqlite3.connect(draft)) as copy:
                kept.backup(copy)
            engine = create_sqlalchemy_engine_with_retry(sqlite_url(draft))
            _upgrade_db(engine)
            engine.dispose()
            if alone := kept.execute(_WRITTEN_BY_OTHERS).fetchone() == before:
                with contextlib.closing(sqlite3.connect(draft)) as copy:
                    copy.backup(kept)
    except Exception as error:  # of SQLite, SQLAlchemy, Alembic, or a migration
        raise LineageError(
            f"MLflow's database {place} is of an earlier MLflow, and cannot be brought up to date: "
            f"{str(error).partition(chr(10))[0]}; it is as it was. Put its backup there, or move it away to begin "
            "anew: no result is lost with it"
        ) from error
    if not alone:
        raise LineageError(
            f"MLflow's database {place} is of an earlier MLflow, and was written to while it was brought up to date; "
            "wait until no run is in progress, and run the same again"
        )


def _set_aside(place: Path) -> None:
    """Renames what lies there, and what SQLite would take for a part of a new file there."""
    found = [ending for ending in _BESIDE if os.path.lexists(f"{place}{ending}")]
    if not found:
        return
    aside = next(
        name
        for name in (f"{place}.half-made-{number}" for number in itertools.count(1))
        if not any(os.path.lexists(f"{name}{ending}") for ending in _BESIDE)
    )
    for ending in found:
        os.rename(f"{place}{ending}", f"{aside}{ending}")
    _logger.warning(
        "a process was killed while it made MLflow's database %s; what it left, in which nobody had written anything, "
        "is %s now and may be removed",
        place,
        aside,
    )


@contextlib.contextmanager
def _draft(place: Path) -> Iterator[Path]:
    """A path beside a file, where nothing is; of one name, so that what a kill leaves there is gone the next time."""
    draft = place.with_name(f".{place.name}.draft")

    def clear() -> None:
        for ending in _BESIDE:
            Path(f"{draft}{ending}").unlink(missing_ok=True)

    clear()
    try:
        yield draft
    finally:
        clear()


def _open(place: Path, mode: str, *, patience_s: float = _PATIENCE_S) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{quote(str(place))}?mode={mode}", uri=True, timeout=patience_s)
