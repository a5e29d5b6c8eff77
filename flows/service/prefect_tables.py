"""The tables of Prefect's SQLite file, laid at once where its own migrations would take ten seconds of a core.

`prefect_tables.sql` is what all migrations of one release of Prefect leave of an empty file, the mark of the last one
included: the server that opens it finds nothing to migrate. Under any other release, and wherever this cannot be done,
the server makes its tables itself, as ever.
"""

import contextlib
import importlib.metadata
import importlib.resources
import os
import sqlite3
import uuid
from collections.abc import Mapping
from pathlib import Path

_FIRST_LINE = "-- Prefect "
_WITH_ITS_LOGS = ("", "-wal", "-journal")  # SQLite would write the log of a file that is gone over the new one


def lay(environment: Mapping[str, str]) -> bool:
    """Makes the database that a server with this environment is about to make, if there is none; whether it did.

    The file is there whole or not at all, and is never put in the place of another: of several that begin together
    one lays it.
    """
    home = environment.get("PREFECT_HOME")
    if home is None or any(name.startswith("PREFECT_") and "_DATABASE_" in name for name in environment):
        return False  # it may be another one
    place = Path(home) / "prefect.db"
    if any(os.path.lexists(f"{place}{ending}") for ending in _WITH_ITS_LOGS):
        return False
    release, tables = _tables()
    if importlib.metadata.version("prefect") != release:
        return False
    draft = place.with_name(f".{place.name}.{uuid.uuid4().hex}")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.closing(sqlite3.connect(draft)) as connection:
            connection.executescript(tables)
        os.link(draft, place)  # fails where another has laid it meanwhile
    except (OSError, sqlite3.Error):
        return False
    finally:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
    return True


def written(release: str, connection: sqlite3.Connection) -> str:
    """The file of a release, of a database that its migrations have made."""
    return f"{_FIRST_LINE}{release}\n" + "".join(f"{statement}\n" for statement in connection.iterdump())


def _tables() -> tuple[str, str]:
    """The release, and the statements."""
    text = importlib.resources.files(__package__).joinpath("prefect_tables.sql").read_text(encoding="utf-8")
    return text.partition("\n")[0].removeprefix(_FIRST_LINE), text
