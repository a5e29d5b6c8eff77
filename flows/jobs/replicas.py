"""Trains one model with several processes: Ray Train's workers, which `pairflow.replicas` makes act as one."""

import contextlib
import logging
import os
import queue
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from flows.home.kept_checkpoints import Checkpoints
from flows.home.kept_results import KeptFolder
from flows.home.settings import Settings
from flows.jobs.driver import connect
from pairflow.errors import JobFailedError, PairFlowError, SpecError
from pairflow.replicas import Replica
from pairflow.training import FitResult, StepMetrics

_MAX_FAILURES = 3  # deaths of workers that a training survives; each goes on from the last checkpoint
_POLL_S = 0.5
_logger = logging.getLogger("pairflow.job")


def connect_for_training() -> None:
    """Makes this job's process a driver of its cluster, if it is none yet.

    Ray Train's own actors look for their cluster by themselves, and find several where there are several.
    """
    own = {"RAY_ADDRESS": os.environ["RAY_ADDRESS"]} if "RAY_ADDRESS" in os.environ else {}
    connect({"env_vars": own})


def _beside_driver() -> dict[str, Any]:
    """Options of an actor that is to live and die with this machine, whatever becomes of the others."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = ray.get_runtime_context().get_node_id()
    return {"num_cpus": 0, "scheduling_strategy": NodeAffinitySchedulingStrategy(here, soft=False)}


def fit_together(
    fit: Callable[..., FitResult], fingerprint: str, settings: Settings, on_step: Callable[[StepMetrics], None]
) -> FitResult:
    """Calls `fit` in PAIRFLOW_TRAIN_WORKERS processes as data-parallel replicas; in this one if that is 1.

    Checkpoints go to the run's folder, and to a store that is no disk: a worker need not see another's disk then. When
    a worker dies, all start again from the last one.

    Args:
        fit: with its data and settings; takes `checkpoint_dir`, `on_step` and `replica`.
        fingerprint: of the training.
        settings: how many workers, and the GPUs of each.
        on_step: told the first worker's metrics, in this process.

    Returns:
        What the first worker's `fit` returned; its checkpoint lies on this disk.

    Raises:
        SpecError: the cluster is too small, or the batch cannot be shared evenly.
        JobFailedError: workers died again and again.
        StoreError: a checkpoint cannot be fetched or put.
        PairFlowError: what `fit` raised.
    """
    num_workers = settings.train_workers
    if num_workers == 1:
        return _fit_first(fit, checkpoints_of(fingerprint, settings), on_step, Replica())
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer
    from ray.util.queue import Queue

    from flows.jobs.rendezvous import OwnRendezvous

    connect_for_training()
    resources = {"CPU": 1.0} | ({"GPU": settings.gpus_per_job} if settings.gpus_per_job else {})
    check_room(resources, num_workers)
    said = Queue(actor_options=_beside_driver())
    trainer = TorchTrainer(
        _work,
        train_loop_config={"fit": ray.put(fit), "fingerprint": fingerprint, "said": said},
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
    return replace(result, checkpoint=checkpoints_of(fingerprint, settings).bring(result.steps))


def checkpoints_of(fingerprint: str, settings: Settings) -> Checkpoints:
    """The checkpoints of a training."""
    return Checkpoints(KeptFolder.at(settings.runs_dir / fingerprint, settings))


def check_room(resources: dict[str, float], num_workers: int) -> None:
    """Raises SpecError if the workers would wait for ever for what the cluster does not have."""
    import ray

    there = ray.cluster_resources()
    for name, number in resources.items():
        if there.get(name, 0) < number * num_workers:
            raise SpecError(
                f"PAIRFLOW_TRAIN_WORKERS={num_workers} wants {number * num_workers:g} {name}s, but the cluster has "
                f"{there.get(name, 0):g}; ask for fewer workers"
            )


def _work(config: dict[str, Any]) -> None:
    """One worker's part. An error of ours is handed on and ends the training: to try again would not help."""
    import ray
    from ray.train import get_context

    from flows.jobs.rendezvous import together

    said, fit = config["said"], ray.get(config["fit"])
    first = get_context().get_world_rank() == 0
    checkpoints = checkpoints_of(config["fingerprint"], Settings.read())  # this node's home, if it has one of its own
    result: FitResult | PairFlowError | None = None
    try:
        with together():
            if first:
                result = _fit_first(fit, checkpoints, said.put, Replica.current())
            else:
                _fit_along(fit, checkpoints, Replica.current())
    except PairFlowError as error:
        result = error
    if first:
        said.put(result)


def _fit_first(
    fit: Callable[..., FitResult], checkpoints: Checkpoints, on_step: Callable[[StepMetrics], None], replica: Replica
) -> FitResult:
    """Trains as the process that writes the checkpoints, from the last of them; others begin with the same one."""

    def on_step_kept(metrics: StepMetrics) -> None:
        on_step(metrics)
        checkpoints.keep()  # of a step before this one: it is written after this

    begun: tuple[int, str] = -1, ""
    try:
        begun = _last_step(checkpoints), ""
        checkpoints.keep(last=True)
        with contextlib.suppress(OSError):  # said when a checkpoint is written
            checkpoints.here.mkdir(parents=True, exist_ok=True)  # by which others know that they see the same folder
    except PairFlowError as error:
        begun = -1, str(error)
        raise
    finally:
        _told_by_first(begun, replica)
    result = fit(checkpoint_dir=checkpoints.here, on_step=on_step_kept, replica=replica)
    checkpoints.keep(last=True)
    return result


def _fit_along(fit: Callable[..., FitResult], checkpoints: Checkpoints, replica: Replica) -> None:
    """Trains beside the process that writes the checkpoints."""
    step, fault = _told_by_first((-1, ""), replica)
    if fault:
        raise JobFailedError(fault)
    if not checkpoints.lie_in_store:
        check_same_folder(checkpoints, step)
        fit(checkpoint_dir=checkpoints.here, on_step=None, replica=replica)
        return
    # This disk may have others, of which the first process knows nothing: all must begin with the same.
    with tempfile.TemporaryDirectory(prefix="pairflow-") as folder:
        try:
            if step >= 0:
                checkpoints.bring(step, Path(folder))
        except PairFlowError as error:  # the others wait: Ray Train is to start all of them again
            raise RuntimeError(f"the checkpoint of step {step} cannot be fetched to this machine: {error}") from error
        fit(checkpoint_dir=folder, on_step=None, replica=replica)


def check_same_folder(checkpoints: Checkpoints, step: int) -> None:
    """Raises RuntimeError, which Ray Train hands on, where this machine does not see what the first process does.

    Args:
        checkpoints: with a store that is a folder.
        step: of the last one that the first process sees; -1 if it sees none.
    """
    if not checkpoints.here.is_dir() or _last_step(checkpoints) != step:
        raise RuntimeError(
            f"a worker on another machine does not see the checkpoints in {checkpoints.here}: with a store that is a "
            "folder all of Ray's nodes must see it and one PAIRFLOW_HOME; mount them, or set PAIRFLOW_STORE to s3://… "
            "or the like, with which they need no disk in common"
        )


def _last_step(checkpoints: Checkpoints) -> int:
    last = checkpoints.latest()
    return -1 if last is None else last[0]


def _told_by_first(word: tuple[int, str], replica: Replica) -> tuple[int, str]:
    """What the first process says, in all of them."""
    if replica.world_size == 1:
        return word
    from ray.train.collective import broadcast_from_rank_zero

    told: tuple[int, str] = broadcast_from_rank_zero(word)
    return told


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
