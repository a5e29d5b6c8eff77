"""MLflow's system metrics of this machine, by MLflow's own monitors, sent as a run's other metrics are.

MLflow's `SystemMetricsMonitor` asks the server before every sample, and ends for good when that fails once.
"""

import contextlib
import logging
import threading
from collections.abc import Iterator
from typing import Any, Protocol

_EVERY_S = 10.0
_logger = logging.getLogger("pairflow.lineage")


class _Log(Protocol):
    def log(self, metrics: dict[str, float], *, step: int) -> None: ...


@contextlib.contextmanager
def watching(run: _Log, every_s: float = _EVERY_S) -> Iterator[None]:
    """Logs CPU, memory, disk, network and NVIDIA GPUs of this machine every `every_s` seconds, and at the end.

    Nothing that goes wrong here is of any consequence to the block.
    """
    over = threading.Event()
    thread = threading.Thread(target=_watch, args=(run, every_s, over), name="machine-metrics", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(5)


def _watch(run: _Log, every_s: float, over: threading.Event) -> None:
    try:
        monitors = _monitors()
        _sample(monitors)  # psutil's CPU load is that since the last time it was asked
        step = 0
        while not over.wait(every_s):
            run.log(_sample(monitors), step=step)
            step += 1
        run.log(_sample(monitors), step=step)
    except Exception as error:  # psutil and GPU libraries raise all kinds
        _logger.warning("no system metrics any more: %s", error)


def _monitors() -> list[Any]:
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
    from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
    from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

    monitors: list[Any] = [CPUMonitor(), DiskMonitor(), NetworkMonitor()]
    with contextlib.suppress(Exception):  # no NVIDIA GPU, or nothing to read one with
        from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor

        monitors.append(GPUMonitor())
    return monitors


def _sample(monitors: list[Any]) -> dict[str, float]:
    found: dict[str, float] = {}
    for each in monitors:
        each.collect_metrics()
        found |= each.aggregate_metrics()
        each.clear_metrics()
    return {f"system/{name}": value for name, value in found.items()}
