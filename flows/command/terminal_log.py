"""What a flow says on the terminal of the command that runs it: short lines, and no more than a person wants to know.

    pair nci ▸ 48 of 48 rows kept
    train nci udlm ▸ warning: MLflow at http://127.0.0.1:5000 does not answer, waiting for it

Prefect's pages keep the whole log, with its times. Here `--verbose` shows what Prefect, Ray and the libraries say too,
and `--quiet` leaves nothing but results.
"""

import logging
import re
import shutil
import sys
import textwrap
import time
from enum import Enum
from pathlib import Path

from tqdm import tqdm

from flows.cluster.protocol import PROGRESS
from pairflow.errors import PairFlowError

_COMPLETED = re.compile(r"Finished in state Completed\((['\"])(.*)\1\)", re.DOTALL)


class Verbosity(Enum):
    """How much is said, as the least level that is."""

    QUIET = logging.ERROR
    NORMAL = logging.INFO
    VERBOSE = logging.DEBUG


class TerminalHandler(logging.Handler):
    """Writes records to standard error, above the bars that are drawn there."""

    def __init__(self, verbosity: Verbosity) -> None:
        super().__init__(verbosity.value)
        self._verbosity = verbosity
        self._said: set[str] = set()
        self._first_run: str | None = None
        self.addFilter(self._is_wanted)

    def emit(self, record: logging.LogRecord) -> None:
        """Writes one record."""
        try:
            text = line(record)
            # Every stage reads the data and says what it found there: once is enough.
            what = text.rpartition(" ▸ ")[2]
            if self._verbosity is not Verbosity.VERBOSE and record.levelno < logging.WARNING and what in self._said:
                return
            self._said.add(what)
            if self._verbosity is Verbosity.VERBOSE:
                text = f"{time.strftime('%H:%M:%S', time.localtime(record.created))} {text}"
                if record.exc_info and not record.exc_text:
                    text += "\n" + logging.Formatter().formatException(record.exc_info)
            with tqdm.external_write_mode(file=sys.stderr):
                print(fitted(text) if sys.stderr.isatty() else text, file=sys.stderr, flush=True)
        except Exception:
            self.handleError(record)

    def _is_wanted(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, (PairFlowError, KeyboardInterrupt)):
            return False  # the command ends with what it says
        of_prefect = "prefect" in Path(record.pathname).parts
        run_id = getattr(record, "flow_run_id", None)
        self._first_run = self._first_run or run_id
        if of_prefect and run_id != self._first_run and _result(record) is not None:
            # What a stage came to; of the whole, and of the evaluation that ends it, the command says it.
            return getattr(record, "flow_name", None) != "evaluate"
        if of_prefect and record.levelno >= logging.ERROR and str(record.msg).startswith("Finished in state"):
            return False
        if getattr(record, PROGRESS, False) and sys.stderr.isatty():
            return False  # a bar shows it
        if self._verbosity is Verbosity.VERBOSE:
            return record.levelno >= logging.INFO or not of_prefect
        return record.levelno >= logging.WARNING or not of_prefect


def line(record: logging.LogRecord) -> str:
    """A record as people read it: which run of which flow, and what is said."""
    message = _result(record) or record.getMessage()
    run = _run(record)
    for known in filter(None, (run, " ".join(run.split()[1:2]))):
        message = message.removeprefix(f"{known}: ")
    if record.levelno >= logging.WARNING:
        message = f"{record.levelname.lower()}: {message}"
    return f"{run} ▸ {message}" if run else message


def _result(record: logging.LogRecord) -> str | None:
    """What a run came to, where Prefect says that it is finished."""
    found = _COMPLETED.fullmatch(record.getMessage())
    return None if found is None else found[2]


def _run(record: logging.LogRecord) -> str:
    """Such as "pair nci"; of what runs beside its like the whole name, "train nci udlm"."""
    name = getattr(record, "flow_run_name", None)
    if not isinstance(name, str):
        return ""
    beside_others = name.startswith(("train ", "distill "))
    return name if beside_others else " ".join(name.split()[:2])


def fitted(text: str) -> str:
    """Words that go on in the next line stay whole there; what holds a path or an address is left to the terminal.

    A terminal that wraps a long line by itself still copies it as one.
    """
    width = shutil.get_terminal_size().columns
    if "/" in text or "\n" in text or len(text) <= width:
        return text
    return textwrap.fill(text, width, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)
