"""Watches whether the servers work, and not only live: `python -m flows.service.watch`, under the supervisor.

Every few seconds it looks at what the servers do in the background (`probes.py`) and at what they write to their logs
(`server_logs.py`), and leaves what it found in a small file, from which `pairflow status` says it at once. A file that
has grown old says that nobody watches.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from flows.home.addresses import service_folder
from flows.home.settings import Settings
from flows.service import probes, rounds, server_logs
from flows.service.programs import PROGRAM_NAMES, ProgramName
from flows.service.supervision import ServiceError, Supervisor

_BETWEEN_ROUNDS_S = 10.0
_STALE_S = 120.0
"""A round lasts seconds, and on a machine that is very busy as long as all questions together may."""
_REMEMBERED_S = 600.0
"""How long a line in a log counts, unless its program was started again since."""
_RECONCILER_S = 60.0
"""Its rounds come every ten seconds; stopping jobs takes some seconds each."""


class Finding(BaseModel):
    """One thing that the servers do in the background.

    Attributes:
        name: of it, after the server's.
        reason: why it is not well; None where it is.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    reason: str | None = None


class Report(BaseModel):
    """What was found, and when: seconds since the epoch."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    at: float
    findings: tuple[Finding, ...]


def read(home: Path) -> Report | None:
    """What was found lately; None if nobody watches."""
    try:
        report = Report.model_validate_json(_path(home).read_bytes())
    except (OSError, ValidationError):
        return None
    return report if time.time() - report.at < _STALE_S else None


def forget(home: Path) -> None:
    """Takes away what an earlier watch has left."""
    _path(home).unlink(missing_ok=True)


class Check:
    """A probe, and how long it may fail before that is said: what is busy or being started needs its time.

    One that fails is asked again within that time, however seldom it is asked otherwise: an answer that was late once
    is not said, and what is well again is not called unwell until its next turn.
    """

    def __init__(self, name: str, probe: Callable[[], str | None], *, patience_s: float, every_s: float = 0) -> None:
        self.name = name
        self._probe = probe
        self._patience_s = patience_s
        self._every_s = every_s
        self._failing_since: float | None = None
        self._reason: str | None = None
        self._next = 0.0

    def look(self, now: float) -> Finding:
        """Asks, if it is time to."""
        if now >= self._next:
            try:
                self._reason = self._probe()
            except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
                self._reason = f"no answer that can be used: {type(error).__name__}: {error}"
            if self._reason is None:
                self._failing_since, self._next = None, now + self._every_s
            else:
                self._failing_since = now if self._failing_since is None else self._failing_since
                self._next = now + min(self._every_s, self._patience_s / 2)
        said = self._failing_since is not None and now - self._failing_since >= self._patience_s
        return Finding(name=self.name, reason=self._reason if said else None)


class LogWatch:
    """What a program wrote that somebody should know of, since it was started and lately."""

    def __init__(self, program: ProgramName, path: Path) -> None:
        self._program = program
        self._tail = server_logs.Tail(path)
        self._tail.skip()
        self._found: list[tuple[float, str]] = []
        self._pid = 0

    def look(self, now: float, pid: int) -> Finding:
        """Reads what was written since the last time."""
        new = [each for each in self._tail.read() if server_logs.is_trouble(self._program, each)]
        if pid != self._pid:  # what an earlier one said at its end is no matter
            self._pid, self._found, new = pid, [], []
            self._tail.read()
        self._found = [each for each in self._found if now - each[0] < _REMEMBERED_S]
        self._found += [(now, server_logs.in_short(each)) for each in new]
        if not self._found:
            return Finding(name=f"{self._program}: log")
        times = f"{len(self._found)} times in ten minutes, last: " if len(self._found) > 1 else ""
        reason = f"{times}{self._found[-1][1]} (`pairflow logs {self._program}`)"
        return Finding(name=f"{self._program}: log", reason=reason)


def checks(settings: Settings) -> list[Check]:
    """What is looked at, beside the logs."""
    prefect, events = probes.Prefect(settings), probes.Events(settings)

    def reconciler() -> str | None:
        age = rounds.seconds_since(settings.home)
        return None if age < _RECONCILER_S else "its last round is long ago: jobs of runs that died work on for nobody"

    return [
        Check("prefect: registration", prefect.registered, patience_s=30, every_s=20),
        # The scheduler's own rounds come every ten seconds, of many deployments in several parts.
        Check("prefect: scheduler", prefect.scheduler, patience_s=90, every_s=20),
        Check("prefect: late runs", prefect.late_runs, patience_s=30, every_s=20),
        Check("prefect: events and automations", events.look, patience_s=30),
        Check("mlflow: writes", lambda: probes.mlflow_writes(settings), patience_s=30, every_s=60),
        Check("ray: writes and nodes", lambda: probes.ray_writes(settings), patience_s=30, every_s=60),
        Check("reconciler: rounds", reconciler, patience_s=_RECONCILER_S),
    ]


def main() -> None:
    """Watches until it is ended."""
    settings = Settings.read()
    supervisor = Supervisor(settings.home)
    looked_at = checks(settings)
    logs = {name: LogWatch(name, supervisor.log_path(name)) for name in PROGRAM_NAMES if name != "watch"}
    while True:
        now = time.monotonic()
        findings = [each.look(now) for each in looked_at]
        try:
            pids = {each.name: each.pid for each in supervisor.states()}
            findings += [log.look(now, pids[name]) for name, log in logs.items()]
        except ServiceError as error:
            findings.append(Finding(name="supervisor", reason=str(error)))
        _write(settings.home, Report(at=time.time(), findings=tuple(findings)))
        time.sleep(_BETWEEN_ROUNDS_S)


def _write(home: Path, report: Report) -> None:
    """Readers see the old file or the new one, never half of one."""
    draft = _path(home).with_suffix(".draft")
    draft.write_text(report.model_dump_json(indent=1), encoding="utf-8")
    os.replace(draft, _path(home))


def _path(home: Path) -> Path:
    return service_folder(home) / "watch.json"


if __name__ == "__main__":
    main()
