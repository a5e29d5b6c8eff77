"""One at a time among the jobs of a Ray cluster: what two runs want at once is made by one and found by the other.

The lock is a named placement group, of a ten-thousandth of what only the head has. Ray gives a name to one group of the
cluster, whichever node asks, and takes the groups of a job away with its driver, however that died. So nothing has to
be renewed, no process is started for it, and no kill leaves the lock behind; if the head dies, its jobs die as well.

Jobs that are processes of a command lock a file of their home, which other commands see: they need not wait for Ray.
"""

import contextlib
import hashlib
import logging
import os
import time
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from flows.cluster.own_jobs import HEAD_VARIABLE
from flows.home.locks import in_turn
from flows.home.settings import Settings
from flows.jobs.driver import connect
from pairflow.errors import JobFailedError

if TYPE_CHECKING:
    from ray.util.placement_group import PlacementGroup

_HELD = {"node:__internal_head__": 1e-4}
_TAKEN = "already exists"
_SECONDS_BETWEEN_ATTEMPTS = 1.0
_FAILURES_AT_MOST = 5
_WAITS = "%s makes the same at this moment; this job waits, and takes what that one made"
_logger = logging.getLogger("pairflow.job")


@contextlib.contextmanager
def turn(what: str) -> Iterator[None]:
    """Waits until no other job is at it, and keeps others waiting within this block.

    Args:
        what: that one job at a time may make, such as the URL of pairs.

    Raises:
        JobFailedError: Ray cannot give a turn.
    """
    if HEAD_VARIABLE in os.environ:
        name = f"turn-{hashlib.sha256(what.encode()).hexdigest()[:16]}"
        with in_turn(Settings.read().home / "locks", name, f"process {os.getpid()}", partial(_logger.info, _WAITS)):
            yield
        return
    from ray.util.placement_group import remove_placement_group

    connect()
    held = _hold(what)
    try:
        yield
    finally:
        remove_placement_group(held)


def _hold(what: str) -> "PlacementGroup":
    from ray.exceptions import RayError
    from ray.util.placement_group import placement_group

    told, failures = False, 0
    while True:
        try:
            return placement_group([_HELD], name=what)
        except RayError as error:
            if _TAKEN not in str(error):
                failures += 1
                if failures > _FAILURES_AT_MOST:
                    raise JobFailedError(f"Ray cannot keep other jobs waiting for {what}: {error}") from error
            elif not told:
                told = True
                _logger.info(_WAITS, _who(what))
        time.sleep(_SECONDS_BETWEEN_ATTEMPTS)
        while _is_held(what):  # asked, as Ray writes a line into the log for every attempt
            time.sleep(_SECONDS_BETWEEN_ATTEMPTS)


def _is_held(what: str) -> bool:
    from ray.exceptions import RayError
    from ray.util.placement_group import get_placement_group

    try:
        get_placement_group(what)
    except (ValueError, RayError):
        return False
    return True


def _who(what: str) -> str:
    from ray.util.state import list_jobs, list_placement_groups

    with contextlib.suppress(Exception):  # it is for the reader alone; Ray's pages may not answer
        for group in list_placement_groups(filters=[("name", "=", what)], detail=True):
            if group.state != "REMOVED":
                (job,) = list_jobs(filters=[("job_id", "=", group.creator_job_id)])
                return f"job {job.submission_id}" if job.submission_id else "another job"
    return "another job"  # that has just ended
