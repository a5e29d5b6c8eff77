"""How a flow and its Ray job speak to each other: a folder in the store, and lines on the job's output.

    <store>/jobs/<submission id>/request.json    written by the flow before it submits
                                 result.json     written by the job when it is done
                                 error.json      written by the job when it fails

Progress travels as lines of the job's log, so following a job costs no polling of the store. They are sentences, as the
log is what Ray's page shows of the job: `PROGRESS | pair qm9: 1,000 of 4,600 rows, 60 rows/s, 01:00 left`.
"""

import contextlib
import io
import json
import logging
import os
import re
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import FrameType
from typing import Any, Self, TypeVar

from pydantic import ConfigDict, ValidationError
from tqdm import tqdm

import storage
from flows.home.network import set_up_network
from pairflow.errors import JobFailedError, PairFlowError, StoreError
from pairflow.spec import Spec

PROGRESS = "is_progress"
"""Attribute of log records that say no more than a bar does."""
JOB_URL_VARIABLE = "PAIRFLOW_JOB_URL"
"""The folder of a job."""
EXPECTED_VARIABLE = "PAIRFLOW_JOB_EXPECTED"
"""Of a process that is started before its job is known: the file that will say that folder."""
_SECONDS_BETWEEN_LOOKS = 0.02
_PROGRESS_MARK = "PROGRESS | "
_PROGRESS = re.compile(
    r"(?P<description>.*): (?P<done>[\d,]+) of (?P<total>[\d,]+) (?P<unit>[^,]*?)"
    r"(?:, (?P<rate>[\d.,e+-]+) (?P=unit)/s, \S+ left)?"
)
_SECONDS_BETWEEN_REPORTS = 0.5
_MOST_SECONDS_BETWEEN_REPORTS = 10.0
_SHARE_BETWEEN_REPORTS = 0.02
_LOG_FORMAT = "%(levelname)s | %(message)s"
# Of Ray about a job, in its log: "2026-11-26 11:35:36,123\tINFO job_manager.py:568 -- Runtime env is setting up."
_OF_RAY = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+\s+(?P<level>[A-Z]+) \S+:\d+ -- (?P<message>.*)")
_LEVELS = {"DEBUG": 10, "INFO": 20, "WARNING": 30, "ERROR": 40, "CRITICAL": 50}
P = TypeVar("P", bound=Spec)
R = TypeVar("R", bound=Spec)


class JobContext(Spec):
    """Who asked for a job: what its lineage links back to."""

    submission_id: str | None
    flow_run_id: str
    root_flow_run_id: str | None = None
    """The run that this one is a part of, such as a pipeline's."""
    flow_run_url: str | None = None
    ray_job_url: str | None = None
    """Page of the job on a dashboard that outlives this command."""
    command: str | None = None
    """The command line that asks for the same again."""
    preset: str | None = None
    """Name of the settings that the flow began with; what was changed of them is in the request."""
    parent_mlflow_run_id: str | None = None
    parent_mlflow_experiment_id: str | None = None
    parent_command: str | None = None
    """The command line of the whole, such as a pipeline's."""
    num_sharing: int = 1
    """Jobs that run at the same time on purpose, and share a machine's cores evenly."""


class Progress(Spec):
    """How far a job is with one piece of work."""

    description: str
    done: int
    total: int
    unit: str
    rate: float | None = None
    """Units a second of late; None before the first."""

    def __str__(self) -> str:
        text = f"{self.description}: {self.done:,} of {self.total:,} {self.unit}"
        if not self.rate or self.done >= self.total:
            return text
        remaining = tqdm.format_interval((self.total - self.done) / self.rate)
        rate = f"{self.rate:,.0f}" if self.rate >= 100 else f"{self.rate:.3g}"
        return f"{text}, {rate} {self.unit}/s, {remaining} left"

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """What `str` said; None if it is something else."""
        if (found := _PROGRESS.fullmatch(text)) is None:
            return None
        done, total = (int(found[name].replace(",", "")) for name in ("done", "total"))
        rate = None if found["rate"] is None else float(found["rate"].replace(",", ""))
        return cls(description=found["description"], done=done, total=total, unit=found["unit"], rate=rate)


class JobError(Spec):
    """Why a job failed, in its own words."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    type: str
    message: str
    expected: bool
    """True for a PairFlowError, whose message is meant for the user as it stands."""


@dataclass(frozen=True)
class JobFolder:
    """The folder of one job in the store."""

    url: str

    def write_request(self, parameters: Spec, context: JobContext) -> None:
        """Leaves the request for the job to find.

        Raises:
            StoreError: the store cannot be written.
        """
        document = {"parameters": parameters.model_dump(mode="json"), "context": context.model_dump(mode="json")}
        self._write("request.json", document)

    def read_request(self, parameters_type: type[P]) -> tuple[P, JobContext]:
        """The request, validated again on this side."""
        document = self._read("request.json")
        if document is None:
            raise JobFailedError(f"no request found at {self.url}/request.json: is the store visible to the cluster?")
        return parameters_type.model_validate(document["parameters"]), JobContext.model_validate(document["context"])

    def write_result(self, result: Spec) -> None:
        """Leaves the result: the job's last act."""
        self._write("result.json", result.model_dump(mode="json"))

    def read_result(self, result_type: type[R]) -> R | None:
        """The result, or None if the job has not written one."""
        document = self._read("result.json")
        try:
            return None if document is None else result_type.model_validate(document)
        except ValidationError as error:
            raise JobFailedError(f"{self.url}/result.json was written by another release: {error}") from None

    def write_error(self, error: BaseException) -> None:
        """Leaves the reason of a failure."""
        expected = isinstance(error, PairFlowError)
        self._write("error.json", {"type": type(error).__name__, "message": str(error), "expected": expected})

    def read_error(self) -> JobError | None:
        """The reason of a failure, or None if the job has not written one."""
        document = self._read("error.json")
        return None if document is None else JobError.model_validate(document)

    def _write(self, name: str, document: dict[str, Any]) -> None:
        # Whole or not at all, like all that is written to the store.
        storage.open_folder(self.url).write(name, json.dumps(document, indent=1).encode())

    def _read(self, name: str) -> dict[str, Any] | None:
        data = storage.open_folder(self.url).read(name)
        if data is None:
            return None
        try:
            document = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise JobFailedError(f"{self.url}/{name} is damaged: {error}; start the same again") from None
        if not isinstance(document, dict):
            raise JobFailedError(f"{self.url}/{name} is damaged: it is no JSON object; start the same again")
        return document


class ProgressLines(tqdm):
    """A tqdm that draws no bar but prints progress lines for the flow: at first two a second, later every ten.

    The library takes it where it would draw a bar of its own (`pairflow.progress`).
    """

    def __init__(self, iterable: Iterable[Any] | None = None, **options: Any) -> None:
        self._began, self._said, self._ended = time.monotonic(), 0.0, False
        # It writes an empty line when it closes; nobody needs to read that.
        super().__init__(
            iterable, **options | {"file": io.StringIO(), "mininterval": _SECONDS_BETWEEN_REPORTS, "miniters": 1}
        )

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Prints where it stands; without a total there is no saying."""
        now = time.monotonic()
        # A page of lines for a job of a minute, and not a book for one of a day.
        pause = min(_SHARE_BETWEEN_REPORTS * (now - self._began), _MOST_SECONDS_BETWEEN_REPORTS)
        ends = self.total is not None and self.n >= self.total
        due = not self._ended if ends else now - self._said >= max(pause, _SECONDS_BETWEEN_REPORTS)
        if self.total and due:
            self._said, self._ended = now, ends
            progress = Progress(
                description=self.desc,
                done=int(self.n),
                total=int(self.total),
                unit=self.unit.strip(),
                rate=self.format_dict["rate"] or (self.n - self.initial) / max(self.format_dict["elapsed"], 1e-3),
            )
            print(f"{_PROGRESS_MARK}{progress}", flush=True)

    def reach(self, done: int) -> None:
        """`done` units are done in all."""
        self.update(done - self.n)


class Speed:
    """Units a second over the last few seconds, as often as that makes a point of a curve."""

    def __init__(self, every_s: float = 2.0) -> None:
        self.done = 0
        self._every_s, self._since, self._before = every_s, time.monotonic(), 0

    def after(self, units: int) -> float | None:
        """So many more are done; the speed since the last one that was given, or None if that was just now."""
        self.done += units
        now = time.monotonic()
        if now - self._since < self._every_s and self._before:
            return None
        speed = (self.done - self._before) / max(now - self._since, 1e-3)
        self._since, self._before = now, self.done
        return speed


def parse_line(line: str) -> Progress | tuple[int, str]:
    """A line of a job's log: progress, or a logging level with its message.

    Lines that the job's libraries print without a level count as INFO, and what Ray says of every job as DEBUG.
    """
    if line.startswith(_PROGRESS_MARK):
        return Progress.parse(line.removeprefix(_PROGRESS_MARK)) or (logging.INFO, line)
    if (of_ray := _OF_RAY.fullmatch(line)) and of_ray["level"] in _LEVELS:
        level_of_ray = _LEVELS[of_ray["level"]]
        return logging.DEBUG if level_of_ray == logging.INFO else level_of_ray, of_ray["message"]
    if line.startswith("Running entrypoint for job "):  # Ray's too
        return logging.DEBUG, line
    level, separator, message = line.partition(" | ")
    return (_LEVELS[level], message) if separator and level in _LEVELS else (logging.INFO, line)


def main(
    parameters_type: type[P],
    work: Callable[[P, JobContext], Spec],
    *,
    beforehand: Callable[[], object] = lambda: None,
) -> int:
    """Runs a job: request in, result or error out; the process's exit code.

    Args:
        parameters_type: of the request.
        work: makes the result.
        beforehand: what a process that was started before its job is known does until then, to be quicker; if it
            fails, the job will say so.
    """
    logging.basicConfig(level=logging.WARNING, format=_LOG_FORMAT, stream=sys.stdout, force=True)
    logging.getLogger("pairflow").setLevel(logging.INFO)
    logger = logging.getLogger("pairflow.job")
    # `stop_job` sends SIGTERM first: as an exception it lets `with` blocks mark what they hold as ended.
    signal.signal(signal.SIGTERM, _terminated)
    set_up_network()
    if EXPECTED_VARIABLE in os.environ:
        with contextlib.suppress(Exception):
            beforehand()
    folder = JobFolder(_job_url())
    try:
        parameters, context = folder.read_request(parameters_type)
        result = work(parameters, context)
    except PairFlowError as error:
        logger.error("%s: %s", type(error).__name__, error)
        folder.write_error(error)
        return 1
    except Exception as error:
        for line in traceback.format_exc().splitlines():  # each with its level, which `parse_line` looks for
            logger.error("%s", line)
        folder.write_error(error)
        return 1
    folder.write_result(result)
    return 0


def _job_url() -> str:
    """That of this process; waited for, where it was started before there was one."""
    if (expected := os.environ.get(EXPECTED_VARIABLE)) is None:
        return os.environ[JOB_URL_VARIABLE]
    while not os.path.exists(expected):
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    with open(expected, encoding="utf-8") as file:
        os.environ[JOB_URL_VARIABLE] = file.read()
    return os.environ[JOB_URL_VARIABLE]


def _terminated(_signal: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + signal.SIGTERM)


def check_store(url: str) -> None:
    """Finds out whether a store can be written, by a small file that is taken away again.

    Raises:
        StoreError: it cannot; with the reason.
    """
    probe = f".probe-{os.getpid()}"
    try:
        folder = storage.open_folder(url)
        folder.write(probe, b"")
        folder.delete(probe)
    except StoreError as error:
        raise StoreError(f"{error} (the store comes from --store or PAIRFLOW_STORE)") from error
