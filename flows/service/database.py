"""PostgreSQL in place of SQLite for the histories of Prefect and MLflow: `pairflow up --database`.

One URL names two databases, NAME_prefect and NAME_mlflow, because both servers want a table `alembic_version` of their
own. Passwords never stand in a URL that is handed on, as command lines and logs can be read by others: both drivers
take them from PGPASSWORD, or from the file ~/.pgpass (PGPASSFILE), and TLS from PGSSLMODE.
"""

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self
from urllib.parse import quote, unquote, urlsplit

from flows.home.addresses import service_folder
from pairflow.errors import SpecError

PASSWORD_VARIABLE = "PGPASSWORD"  # noqa: S105 - a name
_EXPECTED = "expected postgresql://USER@HOST[:PORT]/NAME, such as postgresql://pairflow@db.example.org/pairflow"
_HOW_TO_GIVE_IT = f"leave it out and set {PASSWORD_VARIABLE}, or write it to ~/.pgpass"
# PostgreSQL cuts names after 63 bytes, and ours get an ending.
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,49}")


@dataclass(frozen=True)
class Database:
    """A PostgreSQL server, a role there, and the name that both databases begin with."""

    user: str
    host: str
    port: int
    name: str
    password: str | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, url: str) -> Self:
        """Reads a URL.

        Raises:
            SpecError: it is none that this understands; the message never holds the password.
        """
        try:
            parts = urlsplit(url)
            user, host, port = parts.username, parts.hostname, parts.port or 5432
        except ValueError as error:
            raise SpecError(f"the database's URL cannot be read: {error}; {_EXPECTED}") from None
        shown = f"{parts.scheme}://…@{host}{parts.path}"
        if parts.scheme not in ("postgresql", "postgres") or not user or not host:
            raise SpecError(f"the database's URL {shown} has no user, no host, or another scheme; {_EXPECTED}")
        if parts.query or parts.fragment:
            raise SpecError(
                f"the database's URL {shown} has options after its name; set libpq's variables, such as "
                "PGSSLMODE=require, in their place: both servers read them"
            )
        name = unquote(parts.path.strip("/")) or "pairflow"
        if not _NAME.fullmatch(name):
            raise SpecError(
                f"the name of a database must be up to 50 letters, digits, _ and -, a letter first; got {name!r}"
            )
        return cls(unquote(user), host, port, name, unquote(parts.password) if parts.password else None)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"postgresql://{quote(self.user, safe='')}@{host}:{self.port}/{self.name}"

    @property
    def prefect_name(self) -> str:
        """Name of Prefect's database."""
        return f"{self.name}_prefect"

    @property
    def mlflow_name(self) -> str:
        """Name of MLflow's database."""
        return f"{self.name}_mlflow"

    @property
    def prefect_url(self) -> str:
        """What Prefect's server wants, without the password."""
        return self._driver_url("asyncpg", self.prefect_name)

    @property
    def mlflow_url(self) -> str:
        """What MLflow's server wants, without the password."""
        return self._driver_url("psycopg", self.mlflow_name)

    def environment(self) -> dict[str, str]:
        """What the supervisor hands on to the two servers."""
        password = {PASSWORD_VARIABLE: self.password} if self.password else {}
        return {"PAIRFLOW_DATABASE_URL": str(self), **password}

    def _driver_url(self, driver: str, name: str) -> str:
        return str(self).replace("postgresql://", f"postgresql+{driver}://", 1).rpartition("/")[0] + f"/{name}"


def chosen(home: Path, option: str | None, variable: str | None) -> Database | None:
    """The database of this home: that of `--database`, else of PAIRFLOW_DATABASE_URL, else of the last `up`.

    Raises:
        SpecError: a URL that cannot be used, or a password on the command line.
    """
    if option is not None:
        database = Database.parse(option)
        if database.password:
            raise SpecError(f"--database must not hold the password, as others see command lines; {_HOW_TO_GIVE_IT}")
        return database
    return Database.parse(variable) if variable else remembered(home)


def remembered(home: Path) -> Database | None:
    """The database that the last `pairflow up` of this home used; None for SQLite under the home."""
    try:
        return Database.parse(_memory(home).read_text(encoding="utf-8").strip())
    except FileNotFoundError:
        return None


def remember(home: Path, database: Database) -> None:
    """Lets the next `pairflow up` of this home use it again; the password is not kept."""
    draft = _memory(home).with_suffix(".draft")
    draft.write_text(f"{database}\n", encoding="utf-8")
    os.replace(draft, _memory(home))  # an empty one would be refused by every command


def refuse_another(home: Path, wanted: Database | None) -> None:
    """For servers that run already.

    Raises:
        SpecError: they keep their histories elsewhere than wanted.
    """
    kept = remembered(home)
    if wanted is not None and str(wanted) != str(kept):
        raise SpecError(
            f"the servers of {home} run already, with their histories in {kept or 'SQLite'} and not in {wanted}; "
            "`pairflow down` ends them"
        )


def _memory(home: Path) -> Path:
    return service_folder(home) / "database"
