"""Prefect's server for its own pages alone, and on SQLite as several runs at once can use it.

A new history's tables are laid at once (`prefect_tables.py`).

`python -m flows.service.prefect server start …` is the command `prefect` with two changes. Where
PREFECT_SERVER_API_AUTH_STRING has it ask for a password, it also refuses foreign Host and Origin headers (`guard.py`),
for which it has no settings: its CORS has a browser hide the answers from other pages, and does what they ask.

On SQLite Prefect 3.8.8 begins its transactions so that they take the lock for writing only when they first write. One
that has read by then fails at once ("database is locked") if another wrote meanwhile, whatever timeout is set; under
load requests end with 503, events are taken twice, and the server stands still for minutes. Begun IMMEDIATE, which
Prefect does itself where it wants rows locked, they wait for each other in turn, up to a minute. This can go when
Prefect does so everywhere: `tests/service/test_sqlite.py` says when. PostgreSQL locks rows, and needs none of it.
"""

import os
import runpy
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from prefect.server.database.configurations import SQLITE_BEGIN_MODE, AioSqliteConfiguration
from prefect.settings import get_current_settings
from sqlalchemy.ext.asyncio import AsyncSession, AsyncSessionTransaction

from flows.service import prefect_tables
from flows.service.guard import Guard


def begin_immediately() -> None:
    """Has every transaction of this process on SQLite begin with the lock for writing."""

    @asynccontextmanager
    async def begin_transaction(
        self: AioSqliteConfiguration, session: AsyncSession, with_for_update: bool = False
    ) -> AsyncGenerator[AsyncSessionTransaction, None]:
        token = SQLITE_BEGIN_MODE.set("IMMEDIATE")
        try:
            async with session.begin() as transaction:
                yield transaction
        finally:
            SQLITE_BEGIN_MODE.reset(token)

    AioSqliteConfiguration.begin_transaction = begin_transaction  # type: ignore[method-assign]


def answer_own_pages() -> None:
    """Has the server that this process starts refuse foreign Host and Origin headers.

    What stands before the network alone is guarded: Prefect's services ask the application itself, without a network.
    """
    run = uvicorn.run

    def run_guarded(app: Any, **options: Any) -> None:
        run(Guard(app), **options)

    uvicorn.run = run_guarded


def main() -> None:
    """Becomes the command `prefect`, with the arguments of this one."""
    prefect_tables.lay({"PREFECT_HOME": str(get_current_settings().home), **os.environ})
    begin_immediately()
    if os.environ.get("PREFECT_SERVER_API_AUTH_STRING"):
        answer_own_pages()
    sys.argv[0] = "prefect"
    runpy.run_module("prefect", run_name="__main__")


if __name__ == "__main__":
    main()
