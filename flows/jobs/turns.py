"""One at a time among the jobs of a Ray cluster: what two runs want at once is made by one and found by the other.

The lock is a named actor. A name belongs to one living actor of the cluster, on whichever node, and Ray ends the actors
of a job with its driver, however that died. So nothing has to be renewed, and no kill leaves the lock behind; if the
head dies, its jobs die as well.
"""

import contextlib
import logging
import time
from collections.abc import Iterator
from typing import Any

import ray

from pairflow.errors import JobFailedError

_NAMESPACE = "pairflow"
_SECONDS_BETWEEN_ATTEMPTS = 1.0
_FAILURES_AT_MOST = 5
_logger = logging.getLogger("pairflow.job")


@contextlib.contextmanager
def turn(what: str, submission_id: str | None) -> Iterator[None]:
    """Waits until no other job is at it, and keeps others waiting within this block.

    Args:
        what: that one job at a time may make, such as the URL of pairs.
        submission_id: of this job, for the others to say whom they wait for.

    Raises:
        JobFailedError: Ray cannot start the actor.
    """
    ray.init(address="auto", logging_level=logging.WARNING, ignore_reinit_error=True)
    holder = _hold(what, submission_id or "another job")
    try:
        yield
    finally:
        ray.kill(holder)


def beside_driver() -> dict[str, Any]:
    """Options of an actor that is to live and die with this machine, whatever becomes of the others."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = ray.get_runtime_context().get_node_id()
    return {"num_cpus": 0, "scheduling_strategy": NodeAffinitySchedulingStrategy(here, soft=False)}


@ray.remote
class _Holder:
    def __init__(self, submission_id: str) -> None:
        self._submission_id = submission_id

    def who(self) -> str:
        return self._submission_id


def _hold(what: str, submission_id: str) -> "ray.actor.ActorHandle":
    told, failures = False, 0
    while True:
        try:
            mine = _Holder.options(  # type: ignore[attr-defined]
                name=what, namespace=_NAMESPACE, **beside_driver()
            ).remote(submission_id)
            # Of two that ask in the same moment Ray gives the name to one, and tells the other when it is spoken to.
            ray.get(mine.who.remote())
            return mine
        except ValueError:  # the name is taken
            if not told:
                told = True
                _logger.info(
                    "%s makes the same at this moment; this job waits, and takes what that one made", _who(what)
                )
        except ray.exceptions.RayError as error:
            failures += 1
            if failures > _FAILURES_AT_MOST:
                raise JobFailedError(f"Ray cannot start the process that keeps other jobs waiting: {error}") from error
        time.sleep(_SECONDS_BETWEEN_ATTEMPTS)


def _who(what: str) -> str:
    try:
        other = ray.get_actor(what, namespace=_NAMESPACE)
        return f"job {ray.get(other.who.remote(), timeout=5)}"
    except (ValueError, ray.exceptions.RayError):
        return "another job"  # that has just ended, or not yet begun
