"""A process that has imported MLflow, and forks off others that open a home's history and are killed meanwhile.

It reads requests line by line, and answers each with the exit codes of the processes that it forked.
"""

import itertools
import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).parents[2]
_WRITES = ("ALTER", "CREATE", "DELETE", "DROP", "INSERT", "UPDATE")
Makers = Callable[..., list[int]]
"""Forks a process a moment: "never", "statement 200" (before that one which writes), "rename 1"; their exit codes."""


@contextmanager
def running() -> Iterator[Makers]:
    """Starts it, and ends it."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    with subprocess.Popen(
        [sys.executable, __file__],
        env=environment | {"PYTHONPATH": str(_ROOT), "DO_NOT_TRACK": "true"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:

        def ask(home: Path, *moments: str, how: str = "ours") -> list[int]:
            assert process.stdin is not None
            assert process.stdout is not None
            print(json.dumps([str(home), how, moments]), file=process.stdin, flush=True)
            codes: list[int] = json.loads(process.stdout.readline())
            return codes

        try:
            yield ask
        finally:
            assert process.stdin is not None
            process.stdin.close()


def _die_at(moment: str) -> None:
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    what, _, number = moment.partition(" ")
    seen = itertools.count(1)

    def count() -> None:
        if next(seen) == int(number):
            os.kill(os.getpid(), signal.SIGKILL)

    def on_statement(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if statement.split()[0].upper() in _WRITES:
            count()

    def on_event(name: str, _: Any) -> None:
        if name == "os.rename":
            count()

    if what == "statement":
        event.listen(Engine, "before_cursor_execute", on_statement)
    elif what == "rename":
        sys.addaudithook(on_event)


def _without_waiting(connection: Any, _: Any) -> None:
    connection.execute("PRAGMA synchronous = OFF")  # a kill is no power cut


def _open(home: Path, how: str) -> None:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    from flows.home.settings import Settings
    from flows.lineage.tracking import Lineage

    if how == "ours":
        Lineage(Settings(home=home)).experiment("nci")
    else:  # as MLflow does it by itself, and earlier releases had it do
        event.listen(Engine, "connect", _without_waiting)
        (home / "mlflow").mkdir(parents=True, exist_ok=True)
        SqlAlchemyStore(f"sqlite:///{home}/mlflow/mlflow.db", str(home))


def _fork(home: Path, how: str, moment: str) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        _die_at(moment)
        _open(home, how)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def main() -> None:
    """Serves until its input ends."""
    import mlflow.store.tracking.sqlalchemy_store  # noqa: F401

    import flows.lineage.tracking  # noqa: F401

    for line in sys.stdin:
        home, how, moments = json.loads(line)
        pids = [_fork(Path(home), how, moment) for moment in moments]
        codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
        print(json.dumps(codes), flush=True)


if __name__ == "__main__":
    main()
