"""Prefect's transactions on SQLite while others write: what ours mend, and that Prefect's own still need it."""

import subprocess
import sys
from pathlib import Path

import pytest

_WRITERS = """
import asyncio, sys
import sqlalchemy as sa
from prefect.server.database.configurations import AioSqliteConfiguration

if sys.argv[2] == "ours":
    from flows.service.prefect import begin_immediately
    begin_immediately()


async def add(database, engine, times):
    "Reads a number and writes the next one: whoever wrote between the two must have waited, or be told."
    failed = 0
    for _ in range(times):
        try:
            async with await database.session(engine) as session, database.begin_transaction(session):
                number = (await session.execute(sa.text("SELECT n FROM t"))).scalar_one()
                await asyncio.sleep(0.002)
                await session.execute(sa.text("UPDATE t SET n = :n"), {"n": number + 1})
        except sa.exc.OperationalError as error:
            assert "database is locked" in str(error)
            failed += 1
    return failed


async def main():
    database = AioSqliteConfiguration(f"sqlite+aiosqlite:///{sys.argv[1]}")
    engine = await database.engine()
    async with engine.begin() as connection:
        await connection.execute(sa.text("CREATE TABLE t (n INTEGER)"))
        await connection.execute(sa.text("INSERT INTO t VALUES (0)"))
    failed = sum(await asyncio.gather(*(add(database, engine, 10) for _ in range(6))))
    async with engine.connect() as connection:
        counted = (await connection.execute(sa.text("SELECT n FROM t"))).scalar_one()
    print(failed, counted)
    await engine.dispose()


asyncio.run(main())
"""


@pytest.mark.parametrize(("whose", "fail"), [("ours", False), ("prefect's", True)])
def test_who_reads_and_then_writes(tmp_path: Path, whose: str, fail: bool) -> None:
    """Where Prefect's do not fail either any more, flows/service/prefect.py can go."""
    done = subprocess.run(
        [sys.executable, "-c", _WRITERS, str(tmp_path / "x.db"), whose],
        env={"PREFECT_HOME": str(tmp_path), "DO_NOT_TRACK": "true", "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    failed, counted = map(int, done.stdout.split())
    assert (failed > 0) is fail
    assert counted == 60 - failed
