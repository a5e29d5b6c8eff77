"""An MLflow that does not answer for a while: which failures pass, and how they are waited out."""

import logging
import os
import re
import time
from collections.abc import Callable
from typing import TypeVar

from mlflow.exceptions import MlflowException, RestException

from flows.lineage.errors import LineageError

T = TypeVar("T")
_PASSING = {"INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED", "RESOURCE_EXHAUSTED"}
# MLflow's own are 7 retries of 120 s, during which nothing is said and a server that is back is not noticed.
_QUICK = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "30"}
_CREDENTIALS = re.compile(r"://[^/@\s]*@")
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 10.0
_logger = logging.getLogger("pairflow.lineage")


def be_quick() -> None:
    """Lets this process's MLflow clients report a failure soon, since trying again is up to us; the user's own win."""
    for name, value in _QUICK.items():
        os.environ.setdefault(name, value)


def passes(error: MlflowException) -> bool:
    """Whether a failure may be over when the same is asked again: no connection, a time-out, a server in trouble."""
    return str(error.error_code) in _PASSING


def or_none(ask: Callable[[], T]) -> T | None:
    """What MLflow answers, or None where it says that there is no such thing."""
    try:
        return ask()
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST" and not _is_of_a_page(error):
            return None
        raise


def _is_of_a_page(error: MlflowException) -> bool:
    """Whether something that is no MLflow has answered, as a proxy with a page of its own: it knows of no absence."""
    return not isinstance(error, RestException) and str(error).startswith("API request to endpoint")


def pause_s(attempt: int) -> float:
    """Seconds to wait after the failure of that number, from 0."""
    return float(min(_FIRST_PAUSE_S * 2**attempt, _LONGEST_PAUSE_S))


def first_line(error: Exception) -> str:
    """What an error says, in one line that fits a message."""
    return without_password(str(error).strip().partition("\n")[0][:300])


def without_password(text: str) -> str:
    """A text with URLs such as http://user:password@host without what is before the host."""
    return _CREDENTIALS.sub("://", text)


def insist(action: Callable[[], T], uri: str, patience_s: float) -> T:
    """What `action` returns, asked again while MLflow does not answer; a warning says once that it is waited for.

    Raises:
        LineageError: MLflow refuses, or has not answered for `patience_s` seconds.
    """
    deadline = time.monotonic() + patience_s
    attempt = 0
    while True:
        try:
            return action()
        except MlflowException as error:
            if not passes(error):
                raise LineageError(f"MLflow at {uri} refuses: {first_line(error)}") from error
            left = deadline - time.monotonic()
            if left <= 0:
                waited = f" for {patience_s:,.0f} s" if patience_s else ""
                raise LineageError(
                    f"MLflow cannot be reached at {uri}{waited}: {first_line(error)}; start it, or "
                    "correct MLFLOW_TRACKING_URI, or unset it to use SQLite under PAIRFLOW_HOME, and run the same again"
                ) from error
            if attempt == 0:
                _logger.warning("MLflow at %s does not answer, waiting for it: %s", uri, first_line(error))
            time.sleep(min(pause_s(attempt), left))
            attempt += 1
