"""Several stages at the same time."""

import copy
import functools
import threading
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextvars import copy_context
from typing import Any, TypeVar

from prefect import Flow

from flows.stages.surroundings import within

R = TypeVar("R")


def known_by(stage: Flow[..., R], what: str) -> Flow[..., R]:
    """The flow, whose run within another run is known by what it is about.

    When a run is resumed or retried, Prefect finds the runs within it by function and number of the call, and threads
    call in any order: a model would go on in the run of another.
    """

    @functools.wraps(stage.fn)
    def run(*arguments: Any, **named: Any) -> Any:
        return stage.fn(*arguments, **named)

    run.__qualname__ = f"{stage.fn.__name__} {what}"
    known = copy.copy(stage)
    known.fn = run
    return known


def side_by_side(*runs: Callable[[], R], at_most: int | None = None) -> tuple[R, ...]:
    """Calls stage flows at the same time, their jobs sharing a machine's cores evenly; their results in order.

    When one fails, or Ctrl-C or a cancellation arrives, the jobs of the others are stopped: their checkpoints stay.

    Args:
        runs: what to call.
        at_most: how many at a time; all by default.
    """
    if not runs:
        return ()
    num_sharing = min(len(runs), at_most or len(runs))
    stopped = threading.Event()
    with within(num_sharing=num_sharing, stopped=stopped), ThreadPoolExecutor(num_sharing) as pool:
        # Each thread sees the flow run, the cluster and the MLflow parent of this one.
        futures = [pool.submit(copy_context().run, run) for run in runs]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            stopped.set()  # those that still run, as one failed or this thread was interrupted
            for future in futures:
                future.cancel()  # those that have not begun
        ended = (future.exception() for future in futures if future.done() and not future.cancelled())
        errors = [error for error in ended if error is not None]
        # A signal of Prefect's, as when the whole run was suspended, before what it did to those beside it.
        for error in sorted(errors, key=lambda error: isinstance(error, Exception)):
            raise error
        return tuple(future.result() for future in futures)
