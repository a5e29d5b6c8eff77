"""The processes of the tests' own Ray cluster: others of this machine are none of our business."""

import contextlib
from collections.abc import Iterator

import psutil

from flows.cluster.local import LocalCluster


def command_lines(cluster: LocalCluster) -> Iterator[tuple[psutil.Process, str]]:
    """Each process that lives, with its command line; what ends meanwhile, or is not waited for yet, is left out."""
    for process in psutil.Process(cluster._supervisor.pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # ZombieProcess is one
            yield process, " ".join(process.cmdline()).strip()
