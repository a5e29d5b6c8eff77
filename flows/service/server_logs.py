"""What the servers write about themselves: which lines of their logs are trouble, and which are known not to be.

A record is a line with its time or level at the beginning, and the lines after it that have none, such as a traceback.
Runs that fail are no trouble of a server's: the worker's log holds their output too, and only what the worker says of
itself is looked at there.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

_BEGINS = re.compile(
    r"\d\d:\d\d:\d\d\.\d+ \| "  # Prefect
    r"|\[?\d{4}[/-]\d\d[/-]\d\d[ T]\d\d:\d\d:\d\d"  # MLflow, Ray, supervisord
    r"|(DEBUG|INFO|WARNING|ERROR|CRITICAL):? "  # uvicorn
)
_TROUBLE = re.compile(
    r"\| (ERROR|CRITICAL) +\||^\S+ \S+\s(ERROR|CRITICAL)\b|^\[\S+ \S+ [EF] |^(ERROR|CRITICAL):? "
    r"|Traceback \(most recent call last\)"
    # Warnings by which Prefect says that something is lost.
    r"|moved to the dead letter queue|dropping (message|event|\d+ events)",
    re.MULTILINE,
)
_WORKERS_OWN = re.compile(r"\| (ERROR|CRITICAL) +\| prefect\.(workers?|worker_pools?)\b|moved to the dead letter queue")


@dataclass(frozen=True)
class Known:
    """Records that look like trouble and are none.

    Attributes:
        program: whose.
        pattern: found in the record.
        reason: why nobody needs to act.
    """

    program: str
    pattern: str
    reason: str


KNOWN: tuple[Known, ...] = (
    Known(
        "ray",
        r"Timed out waiting for node info|The current node timed out during startup",
        "on a busy machine a node takes longer than the 30 s that `ray start` waits; it is started again",
    ),
    Known("ray", r", in sigterm_handler\b", "its start was cut off by somebody, who knows of it"),
)


def records(lines: Iterable[str]) -> Iterator[str]:
    """The records of a log."""
    record: list[str] = []
    for line in lines:
        if _BEGINS.match(line) and record:
            yield "\n".join(record)
            record = []
        record.append(line.rstrip("\n"))
    if record:
        yield "\n".join(record)


def is_trouble(program: str, record: str) -> bool:
    """Whether somebody should know of a record."""
    wanted = _WORKERS_OWN if program == "worker" else _TROUBLE
    return wanted.search(record) is not None and not any(
        each.program == program and re.search(each.pattern, record) for each in KNOWN
    )


def in_short(record: str) -> str:
    """A record in a line: how it begins, and the exception that its traceback ends with."""
    lines = [line.strip() for line in record.splitlines() if line.strip()]
    if not lines:
        return ""
    exceptions = [line for line in lines[1:] if re.match(r"[A-Za-z_][\w.]*(Error|Exception|Warning)\b", line)]
    return " … ".join([lines[0][:200], *(line[:200] for line in exceptions[-1:])])


class Tail:
    """Reads what a log has gained; a log that was begun anew, as when it has grown too large, from its beginning."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: tuple[int, int] = (0, 0)  # inode, and how far it was read
        self._rest = ""

    def skip(self) -> None:
        """Passes over what is there."""
        if self._path.is_file():
            status = self._path.stat()
            self._file = (status.st_ino, status.st_size)

    def read(self) -> list[str]:
        """Whole records; the last one waits for the next call, as the end of its traceback may be still to come."""
        new = self._gained()
        text = self._rest + new
        whole = list(records(text.splitlines(keepends=True)))
        self._rest = ""
        if new and whole:
            self._rest = whole.pop() + ("\n" if text.endswith("\n") else "")
        return [each for each in whole if each.strip()]

    def _gained(self) -> str:
        try:
            with self._path.open("rb") as log:
                status = self._path.stat()
                inode, place = self._file
                if inode != status.st_ino or status.st_size < place:
                    place = 0
                log.seek(place)
                new = log.read()
        except FileNotFoundError:
            return ""
        self._file = (status.st_ino, place + len(new))
        return new.decode("utf-8", errors="replace")
