"""Draws the missing shards of a model's own pairs (ReDi) as Ray tasks: one a shard."""

from collections.abc import Callable, Sequence

import numpy as np
import ray

import storage
from flows.jobs.driver import connect
from flows.jobs.shards import MAX_RETRIES, ShardStatistics, make_shards, room
from pairflow.checkpoint import LoadedModel
from pairflow.spec import RediSpec
from storage import PairsHeader, ShardPlan

BLOCK = 128
"""Pairs that the network is asked about at once. A shard is cut from whole blocks, counted from pair 0, because a
network rounds differently in another batch: so pair i is a function of (seed, i), however shards are cut."""

SHARD_SIZE = BLOCK
"""Pairs a shard by default: one block. A pair costs hundreds of network calls, where a row of a closed-form coupling
costs none, so a block is seconds to minutes of work: long beside its writing, and all that a lost worker loses."""


def draw_shards(
    url: str,
    header: PairsHeader,
    loaded: LoadedModel,
    shards: Sequence[ShardPlan],
    spec: RediSpec,
    *,
    cpus_per_task: float,
    gpus_per_task: float,
    num_workers: int | None,
    on_shard: Callable[[ShardStatistics], None],
) -> None:
    """Draws and writes shards; the model lies once in each node's object store.

    Args:
        url: of the pairs, begun with `header`.
        header: as the store keeps it.
        loaded: the model, on the CPU.
        shards: those to make.
        spec: how many pairs there are, and how they are drawn.
        cpus_per_task: what Ray reserves for a shard, and the threads that it uses.
        gpus_per_task: likewise.
        num_workers: tasks at a time.
        on_shard: called in this process for each shard that is written.

    Raises:
        PairFlowError: what a task raised.
        JobFailedError: a worker died again and again.
    """
    connect()
    model = ray.put(loaded)
    task = _draw_shard.options(num_cpus=cpus_per_task, num_gpus=gpus_per_task, max_retries=MAX_RETRIES)
    num_threads = max(1, int(cpus_per_task))

    def submit(shard: ShardPlan) -> ray.ObjectRef:
        return task.remote(model, url, header, shard, spec, num_threads)

    make_shards(url, shards, submit, num_workers or 2 * room(cpus_per_task, gpus_per_task), on_shard)


@ray.remote
def _draw_shard(
    loaded: LoadedModel, url: str, header: PairsHeader, shard: ShardPlan, spec: RediSpec, num_threads: int
) -> ShardStatistics:
    """Draws pairs `shard.start` to `shard.stop` and writes them."""
    import torch

    torch.set_num_threads(num_threads)
    source, target = draw_rows(loaded, spec, shard.start, shard.stop)
    numbers = np.arange(shard.start, shard.stop, dtype=np.int64)
    storage.write_shard(url, header, shard.index, source, target, numbers)
    return ShardStatistics.of(target, source, 0)


def draw_rows(loaded: LoadedModel, spec: RediSpec, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
    """(sources, targets) [stop − start, D] of some pairs, drawn in whole blocks."""
    from pairflow.distillation.redi import draw_pairs

    first = start // BLOCK * BLOCK
    last = min(-(-stop // BLOCK) * BLOCK, spec.num_pairs)
    drawn = draw_pairs(loaded, spec, start=first, stop=last, batch_size=BLOCK, progress=False)
    rows = slice(start - first, stop - first)
    return drawn.source[rows], drawn.target[rows]
