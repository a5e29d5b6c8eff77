"""Makes the missing shards of a coupling as Ray tasks: one a shard, a bounded number at a time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import ray
from pydantic import JsonValue

import storage
from flows.jobs import parts
from flows.jobs.driver import connect
from flows.jobs.extension import Earlier, TakenOver
from pairflow.coupling import Coupled, couple_counted
from pairflow.datasets import TokenDataset
from pairflow.errors import JobFailedError, PairFlowError, SpecError
from pairflow.spec import CouplingSpec
from storage import PairsHeader, ShardPlan

# A shard whose worker dies (a killed process, a lost node) is run again so often; an exception is not.
MAX_RETRIES = 3
# Shards at a time when the support is in parts: one thinks while the parts work for the other.
_IN_FLIGHT_IN_PARTS = 2
# A row costs so many seconds of a core for every token of the support, and for every token of every step.
_SECONDS_PER_SUPPORT_TOKEN, _SECONDS_PER_STEP_TOKEN = 8e-11, 1e-7
# So this is some two seconds: long beside the writing of a shard (tens of milliseconds, most of it fsync), short beside
# the whole, so that workers end together.
_TOKENS_PER_SHARD = 2.5e10
# What takes so long by one core is done before a worker has begun.
_SECONDS_IN_PROCESS = 2.0
_SHARD_ROWS = (1000, 16_384)


def default_shard_size(support_size: int, length: int) -> int:
    """Rows a shard where nobody asks for a number: a function of M and D alone."""
    fewest, most = _SHARD_ROWS
    return min(most, max(fewest, round(_TOKENS_PER_SHARD / (support_size * length))))


@dataclass(frozen=True, eq=False)
class ShardStatistics:
    """What some coupled rows look like; adds up over shards.

    Attributes:
        rows: pairs.
        hamming: [D+1] int64, how many pairs differ at 0, 1, …, D positions.
        kept: [D] int64, how many sources have their target's token, by position.
        scans: steps, over all rows, at which the support was looked at.
    """

    rows: int
    hamming: np.ndarray
    kept: np.ndarray
    scans: int

    @classmethod
    def of(cls, target: np.ndarray, source: np.ndarray, scans: int) -> Self:
        """Of targets and sources [B, D]."""
        same = source == target
        length = target.shape[1]
        hamming = np.bincount(length - same.sum(axis=1), minlength=length + 1)
        return cls(len(target), hamming, same.sum(axis=0), scans)

    def __add__(self, other: "ShardStatistics") -> "ShardStatistics":
        return ShardStatistics(
            self.rows + other.rows, self.hamming + other.hamming, self.kept + other.kept, self.scans + other.scans
        )

    def figures(self, num_steps: int | None) -> dict[str, JsonValue]:
        """Numbers for the manifest, JSON values; of pairs that took no steps over a support with None."""
        length = len(self.kept)
        distances = np.flatnonzero(self.hamming)
        first, last = int(distances[0]), int(distances[-1])
        scanned = {} if num_steps is None else {"scan_fraction": self.scans / (self.rows * num_steps)}
        return {
            "mean_hamming": float(self.hamming @ np.arange(length + 1) / self.rows),
            "keep_rate": float(self.kept.sum() / (self.rows * length)),
            **scanned,
            "hamming_histogram": {"first": first, "counts": self.hamming[first : last + 1].tolist()},
            "keep_rate_by_position": (self.kept / self.rows).round(6).tolist(),
        }


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
    support_parts: int,
    on_shard: Callable[[ShardStatistics], None],
    earlier: Earlier | None = None,
) -> None:
    """Couples and writes shards, each against the whole training part.

    In this process where all take one core a moment only, and nobody asks for a number of workers.
    Else the training part lies once in each node's object store, column after column, which is how the engine reads it:
    no task copies it. No more than `num_workers` tasks are in flight, by default twice as many as the cluster has
    room for, so that a free CPU never waits for this process. With several `support_parts` it lies in as many actors,
    and the tasks ask them (`flows.jobs.parts`): the same pairs, from a support that no node could hold.

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
        support_parts: parts of the support, each with the CPUs and GPUs of a task; 1: a copy a node.
        on_shard: called in this process for each shard that is written.
        earlier: pairs that are taken over where they have the row; the others are walked.

    Raises:
        PairFlowError: what a task raised.
        JobFailedError: a worker died again and again.
    """

    def taken_over(shard: ShardPlan) -> TakenOver | None:
        return None if earlier is None else earlier.part(shard)

    if support_parts > 1 and spec.kind == "closed_form":
        in_flight = num_workers or _IN_FLIGHT_IN_PARTS
        connect()
        remote = parts.start(
            train.tokens,
            spec,
            engine=engine,
            num_parts=support_parts,
            cpus_per_part=cpus_per_task,
            gpus_per_part=gpus_per_task,
        )
        in_parts = _couple_shard_in_parts.options(num_cpus=0, max_retries=MAX_RETRIES)  # the parts do the work

        def submit(shard: ShardPlan) -> ray.ObjectRef:
            target = train.tokens[np.arange(shard.start, shard.stop) % len(train)]
            return in_parts.remote(target, len(train), remote, url, header, shard, spec, taken_over(shard))
    else:
        num_threads = max(1, int(cpus_per_task))
        if num_workers is None and engine == "cpu" and _seconds(shards, train, spec) < _SECONDS_IN_PROCESS:
            support_here = np.asfortranarray(train.tokens)
            for shard in shards:
                on_shard(_couple_shard(support_here, url, header, shard, spec, engine, num_threads, taken_over(shard)))
            return
        connect()
        in_flight = num_workers or 2 * room(cpus_per_task, gpus_per_task)
        support = ray.put(np.asfortranarray(train.tokens))
        whole = ray.remote(_couple_shard).options(
            num_cpus=cpus_per_task, num_gpus=gpus_per_task, max_retries=MAX_RETRIES
        )

        def submit(shard: ShardPlan) -> ray.ObjectRef:
            return whole.remote(support, url, header, shard, spec, engine, num_threads, taken_over(shard))

    make_shards(url, shards, submit, in_flight, on_shard)


def make_shards(
    url: str,
    shards: Sequence[ShardPlan],
    submit: Callable[[ShardPlan], ray.ObjectRef],
    in_flight: int,
    on_shard: Callable[[ShardStatistics], None],
) -> None:
    """Runs a task a shard, `in_flight` at a time, in order.

    Args:
        url: of the pairs, for messages.
        shards: those to make.
        submit: starts the task of a shard, which writes it and returns its statistics.
        in_flight: tasks at a time.
        on_shard: called in this process for each shard that is written.

    Raises:
        PairFlowError: what a task raised.
        JobFailedError: a worker died again and again.
    """
    waiting = list(reversed(shards))
    running: dict[ray.ObjectRef, ShardPlan] = {}
    while waiting or running:
        while waiting and len(running) < in_flight:
            shard = waiting.pop()
            running[submit(shard)] = shard
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
                    f"{MAX_RETRIES} retries: {error}; what is written stays, and a rerun makes only what is missing"
                ) from error
            on_shard(statistics)


def room(cpus_per_task: float, gpus_per_task: float) -> int:
    """Tasks that the cluster can run at once, at least 1.

    Raises:
        SpecError: a task wants more GPUs than there are: it would wait for ever.
    """
    there = ray.cluster_resources()
    room = there.get("CPU", 1) / cpus_per_task
    if gpus_per_task:
        if there.get("GPU", 0) < gpus_per_task:
            raise SpecError(
                f"a shard wants {gpus_per_task:g} GPUs and the cluster has {there.get('GPU', 0):g}; use engine 'cpu', "
                "or set PAIRFLOW_GPUS_PER_TASK"
            )
        room = min(room, there["GPU"] / gpus_per_task)
    return max(1, int(room))


def _seconds(shards: Sequence[ShardPlan], train: TokenDataset, spec: CouplingSpec) -> float:
    """About what shards take one core."""
    rows = sum(shard.num_rows for shard in shards)
    support = min(spec.support_size or len(train), len(train))
    a_row = support * _SECONDS_PER_SUPPORT_TOKEN + spec.num_steps * _SECONDS_PER_STEP_TOKEN
    return rows * a_row * train.length


def _couple_shard(
    support: np.ndarray,
    url: str,
    header: PairsHeader,
    shard: ShardPlan,
    spec: CouplingSpec,
    engine: str,
    num_threads: int,
    taken_over: TakenOver | None,
) -> ShardStatistics:
    """Couples pairs `shard.start` to `shard.stop` and writes them.

    Pair n is row n mod M of `support` [M, D] with its source number n div M, so that the first M pairs of several
    sources a target are those of a coupling with one.
    """
    replicas, sample_id = np.divmod(np.arange(shard.start, shard.stop, dtype=np.int64), len(support))
    target = np.ascontiguousarray(support[sample_id])

    def walk(rows: np.ndarray | slice) -> Coupled:
        return couple_counted(
            target[rows],
            support,
            vocab_size=header.vocab_size,
            spec=spec,
            sample_ids=sample_id[rows],
            replicas=replicas[rows],
            engine=engine,
            num_threads=num_threads,
        )

    return _write(url, header, shard, target, sample_id, _coupled(target, walk, taken_over))


@ray.remote
def _couple_shard_in_parts(
    target: np.ndarray,
    num_rows: int,
    support: parts.RemoteSupport,
    url: str,
    header: PairsHeader,
    shard: ShardPlan,
    spec: CouplingSpec,
    taken_over: TakenOver | None,
) -> ShardStatistics:
    """As `_couple_shard`, of targets that are already chosen from M = `num_rows`, against actors."""
    replicas, sample_id = np.divmod(np.arange(shard.start, shard.stop, dtype=np.int64), num_rows)

    def walk(rows: np.ndarray | slice) -> Coupled:
        return parts.couple(
            target[rows],
            support,
            f"shard {shard.index}",
            vocab_size=header.vocab_size,
            spec=spec,
            sample_ids=sample_id[rows],
            replicas=replicas[rows],
        )

    return _write(url, header, shard, target, sample_id, _coupled(target, walk, taken_over))


def _coupled(
    target: np.ndarray, walk: Callable[[np.ndarray | slice], Coupled], taken_over: TakenOver | None
) -> Coupled:
    return walk(slice(None)) if taken_over is None else taken_over.couple(target, walk)


def _write(
    url: str, header: PairsHeader, shard: ShardPlan, target: np.ndarray, sample_id: np.ndarray, coupled: Coupled
) -> ShardStatistics:
    storage.write_shard(url, header, shard.index, coupled.source, target, sample_id)
    return ShardStatistics.of(target, coupled.source, int(coupled.num_scans.sum()))
