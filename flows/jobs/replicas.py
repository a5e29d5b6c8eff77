"""Trains one model with several processes: Ray Train's workers, which `pairflow.replicas` makes act as one."""

import logging
import os
import queue
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import ray

from flows.home.settings import Settings
from pairflow.errors import JobFailedError, PairFlowError, SpecError
from pairflow.training import FitResult, StepMetrics

_MAX_FAILURES = 3  # deaths of workers that a training survives; each goes on from the last checkpoint
_POLL_S = 0.5
_logger = logging.getLogger("pairflow.job")


def fit_together(
    fit: Callable[..., FitResult], settings: Settings, on_step: Callable[[StepMetrics], None]
) -> FitResult:
    """Calls `fit` in PAIRFLOW_TRAIN_WORKERS processes as data-parallel replicas; in this one if that is 1.

    Its checkpoints must lie where all workers see them. When a worker dies, all start again from the last one.

    Args:
        fit: with its data and settings; takes `on_step` and `replica`.
        settings: how many workers, and the GPUs of each.
        on_step: told the first worker's metrics, in this process.

    Raises:
        SpecError: the cluster is too small, or the batch cannot be shared evenly.
        JobFailedError: workers died again and again.
        PairFlowError: what `fit` raised.
    """
    num_workers = settings.train_workers
    if num_workers == 1:
        return fit(on_step=on_step)
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer
    from ray.util.queue import Queue

    from flows.jobs.rendezvous import OwnRendezvous

    # Ray Train's own actors look for their cluster by themselves, and find several where there are several.
    own = {"RAY_ADDRESS": os.environ["RAY_ADDRESS"]} if "RAY_ADDRESS" in os.environ else {}
    ray.init(address="auto", logging_level=logging.WARNING, runtime_env={"env_vars": own})
    resources = {"CPU": 1.0} | ({"GPU": settings.gpus_per_job} if settings.gpus_per_job else {})
    check_room(resources, num_workers)
    said = Queue(actor_options={"num_cpus": 0})
    trainer = TorchTrainer(
        _work,
        train_loop_config={"fit": ray.put(fit), "said": said},
        scaling_config=ScalingConfig(
            num_workers=num_workers, use_gpu=bool(settings.gpus_per_job), resources_per_worker=resources
        ),
        torch_config=OwnRendezvous(),
        run_config=RunConfig(
            storage_path=str(settings.home / "ray" / "train"),
            failure_config=FailureConfig(max_failures=_MAX_FAILURES),
        ),
    )
    over = threading.Event()
    failure: Exception | None = None
    _logger.info("training with %d workers", num_workers)
    with ThreadPoolExecutor(1) as listener:
        results = listener.submit(_listen, said, on_step, over)
        try:
            trainer.fit()
        except ray.train.TrainingFailedError as error:
            failure = error
        finally:
            over.set()
    result = results.result()
    said.shutdown()
    if isinstance(result, PairFlowError):
        raise result
    if failure is not None or result is None:
        raise JobFailedError(
            f"training with {num_workers} workers was given up after {_MAX_FAILURES} failures: {failure}; the last "
            "checkpoint stays, and the same command goes on from there"
        ) from failure
    return result


def check_room(resources: dict[str, float], num_workers: int) -> None:
    """Raises SpecError if the workers would wait for ever for what the cluster does not have."""
    there = ray.cluster_resources()
    for name, number in resources.items():
        if there.get(name, 0) < number * num_workers:
            raise SpecError(
                f"PAIRFLOW_TRAIN_WORKERS={num_workers} wants {number * num_workers:g} {name}s, but the cluster has "
                f"{there.get(name, 0):g}; ask for fewer workers"
            )


def _work(config: dict[str, Any]) -> None:
    """One worker's part. An error of ours is handed on and ends the training: to try again would not help."""
    from ray.train import get_context

    from flows.jobs.rendezvous import together
    from pairflow.replicas import Replica

    said, fit = config["said"], ray.get(config["fit"])
    first = get_context().get_world_rank() == 0
    try:
        with together():
            result: FitResult | PairFlowError = fit(on_step=said.put if first else None, replica=Replica.current())
    except PairFlowError as error:
        result = error
    if first:
        said.put(result)


def _listen(
    said: Any, on_step: Callable[[StepMetrics], None], over: threading.Event
) -> FitResult | PairFlowError | None:
    """Hands on the metrics until the training is over and all is read; what came of it, if anything did."""
    result: FitResult | PairFlowError | None = None
    while True:
        ended = over.is_set()
        try:
            word = said.get(timeout=_POLL_S)
        except queue.Empty:
            if ended:
                return result
            continue
        if isinstance(word, StepMetrics):
            on_step(word)
        else:
            result = word
