"""Makes the missing shards of an assignment as Ray tasks: one a shard, which by default is one block."""

from collections.abc import Callable, Sequence

import numpy as np
import ray

import storage
from flows.jobs.driver import connect
from flows.jobs.shards import MAX_RETRIES, ShardStatistics, make_shards, room
from pairflow.coupling.assignment import SourceNoise, couple_pairs
from pairflow.datasets import TokenDataset
from pairflow.spec import CouplingSpec
from storage import PairsHeader, ShardPlan


def match_shards(
    url: str,
    header: PairsHeader,
    train: TokenDataset,
    shards: Sequence[ShardPlan],
    spec: CouplingSpec,
    *,
    cpus_per_task: float,
    num_workers: int | None,
    on_shard: Callable[[ShardStatistics], None],
) -> None:
    """Matches and writes shards; the training part lies once in each node's object store.

    A shard that cuts a block makes all of it, and keeps its part: so any shard size gives the same pairs.

    Args:
        url: of the pairs, begun with `header`.
        header: as the store keeps it.
        train: the training part; its row numbers are the sample ids.
        shards: those to make.
        spec: of kind "assignment".
        cpus_per_task: what Ray reserves for a shard, and the blocks that it makes at once.
        num_workers: tasks at a time; by default what the cluster has room for, as each holds a block's B² counts.
        on_shard: called in this process for each shard that is written.

    Raises:
        PairFlowError: what a task raised.
        JobFailedError: a worker died again and again.
    """
    connect()
    rows = ray.put(train.tokens)
    noise = ray.put(SourceNoise.of(train.tokens, header.vocab_size, spec))
    task = _match_shard.options(num_cpus=cpus_per_task, max_retries=MAX_RETRIES)
    num_threads = max(1, int(cpus_per_task))

    def submit(shard: ShardPlan) -> ray.ObjectRef:
        return task.remote(rows, noise, url, header, shard, spec, num_threads)

    make_shards(url, shards, submit, num_workers or room(cpus_per_task, 0), on_shard)


@ray.remote
def _match_shard(
    rows: np.ndarray,
    noise: SourceNoise,
    url: str,
    header: PairsHeader,
    shard: ShardPlan,
    spec: CouplingSpec,
    num_threads: int,
) -> ShardStatistics:
    """Matches pairs `shard.start` to `shard.stop` and writes them."""
    made = couple_pairs(
        *(rows, shard.start, shard.stop),
        vocab_size=header.vocab_size,
        spec=spec,
        noise=noise,
        num_threads=num_threads,
    )
    storage.write_shard(url, header, shard.index, made.source, made.target, made.sample_id)
    return ShardStatistics.of(made.target, made.source, 0)
