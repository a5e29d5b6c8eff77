"""Couples the missing shards of a coupling as Ray tasks: one a shard, a bounded number at a time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import ray

import storage
from pairflow.coupling import couple
from pairflow.datasets import TokenDataset
from pairflow.errors import JobFailedError, PairFlowError
from pairflow.spec import CouplingSpec
from storage import PairsHeader, ShardPlan

# A shard whose worker dies (a killed process, a lost node) is run again so often; an exception is not.
_MAX_RETRIES = 3


@dataclass(frozen=True)
class ShardStatistics:
    """What a shard adds to the coupling's summary."""

    rows: int
    moved: int
    """Positions, over all rows, at which the source differs from the target."""


def couple_shards(
    url: str,
    header: PairsHeader,
    train: TokenDataset,
    shards: Sequence[ShardPlan],
    spec: CouplingSpec,
    *,
    engine: str,
    cpus_per_task: float,
    gpus_per_task: float,
    num_workers: int | None,
    on_shard: Callable[[ShardStatistics], None],
) -> None:
    """Couples and writes shards, each against the whole training part.

    The training part lies once in each node's object store, column after column, which is how the engine reads it:
    no task copies it. No more than `num_workers` tasks are in flight, by default twice as many as the cluster has
    room for, so that a free CPU never waits for this process.

    Args:
        url: of the pairs, begun with `header`.
        header: as the store keeps it.
        train: the training part; its row numbers are the sample ids.
        shards: those to make.
        spec: what to draw.
        engine: resolved name.
        cpus_per_task: what Ray reserves for a shard, and the threads that it uses.
        gpus_per_task: likewise.
        num_workers: tasks at a time.
        on_shard: called in this process for each shard that is written.

    Raises:
        PairFlowError: what a task raised.
        JobFailedError: a worker died again and again.
    """
    in_flight = num_workers or 2 * max(1, int(ray.cluster_resources().get("CPU", 1) / cpus_per_task))
    support = ray.put(np.asfortranarray(train.tokens))
    task = _couple_shard.options(num_cpus=cpus_per_task, num_gpus=gpus_per_task, max_retries=_MAX_RETRIES)
    num_threads = max(1, int(cpus_per_task))
    waiting = list(reversed(shards))
    running: dict[ray.ObjectRef, ShardPlan] = {}
    while waiting or running:
        while waiting and len(running) < in_flight:
            shard = waiting.pop()
            running[task.remote(support, url, header, shard, spec, engine, num_threads)] = shard
        done, _ = ray.wait(list(running), num_returns=1)
        for reference in done:
            shard = running.pop(reference)
            try:
                statistics = ray.get(reference)
            except ray.exceptions.RayTaskError as error:
                if isinstance(error.cause, PairFlowError):
                    raise error.cause from None
                raise
            except ray.exceptions.RayError as error:
                raise JobFailedError(
                    f"shard {shard.index} (rows {shard.start} to {shard.stop - 1}) of {url} was given up after "
                    f"{_MAX_RETRIES} retries: {error}; what is written stays, and a rerun makes only what is missing"
                ) from error
            on_shard(statistics)


@ray.remote
def _couple_shard(
    support: np.ndarray,
    url: str,
    header: PairsHeader,
    shard: ShardPlan,
    spec: CouplingSpec,
    engine: str,
    num_threads: int,
) -> ShardStatistics:
    """Couples rows `shard.start` to `shard.stop` of `support` [M, D] and writes them."""
    target = np.ascontiguousarray(support[shard.start : shard.stop])
    sample_id = np.arange(shard.start, shard.stop, dtype=np.int64)
    source = couple(
        target,
        support,
        vocab_size=header.vocab_size,
        spec=spec,
        sample_ids=sample_id,
        engine=engine,
        num_threads=num_threads,
    )
    storage.write_shard(url, header, shard.index, source, target, sample_id)
    return ShardStatistics(rows=len(target), moved=int((source != target).sum()))
