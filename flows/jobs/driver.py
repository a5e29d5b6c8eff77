"""A job's process as a driver of its Ray cluster."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flows.cluster.local import START_PATIENCE_S, wait_for_head
from flows.cluster.own_jobs import HEAD_VARIABLE
from flows.home.settings import Settings

_NAMESPACE = "pairflow"
"""Of all jobs: by default each has one of its own, and sees no names that others gave."""


def _patience() -> float:
    """Seconds for Ray to start; who starts it has as many, and says why it did not."""
    given = Settings.read().ray_patience
    return START_PATIENCE_S if given is None else given


def connect(runtime_env: Mapping[str, Any] | None = None) -> None:
    """Makes this process one, if it is none yet; what its tasks and actors are to have is the job's, by default."""
    import ray  # here, as in whatever a job without tasks loads: a quarter of a second of a core

    if ray.is_initialized():
        return
    head = os.environ.get(HEAD_VARIABLE)
    ray.init(
        address="auto" if head is None else wait_for_head(Path(head), _patience()),
        namespace=_NAMESPACE,
        logging_level=logging.WARNING,
        runtime_env=None if runtime_env is None else dict(runtime_env),
        ignore_reinit_error=True,
    )
