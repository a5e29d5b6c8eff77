"""A support larger than a node: Ray actors hold a part each, and the tasks of shards ask all of them at each step.

A step of a batch of rows costs two round trips, one for the histograms of all parts and one for the drawn rows' tokens;
the actors work side by side, and several shards in flight keep them busy while a task thinks. An actor keeps the match
counts of each shard in flight, so if it dies they are lost with it: Ray starts it again with its part, the shards in
flight find their counts gone and start anew, and as all draws are keyed the pairs are the same as without.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import ray
from ray.actor import ActorHandle

from pairflow.coupling import couple_in_parts, support_rows
from pairflow.coupling.parts import Draws, Moves, SupportPart, part_slices, select
from pairflow.coupling.result import Coupled
from pairflow.errors import JobFailedError, SpecError
from pairflow.spec import CouplingSpec

if TYPE_CHECKING:  # only the tasks that walk load it, and actors on a GPU
    from torch import Tensor

_MAX_RESTARTS = 3  # of an actor whose process or node dies
_MAX_ATTEMPTS = 4  # at a shard
_RESTART_TIMEOUT_S = 300.0  # until an actor that died has a place, and its part from the object store
_BYTES_PER_BATCH = 2**28  # of match counts, for one shard in one actor
_MAX_BATCH = 256  # rows


@dataclass(frozen=True, eq=False)
class RemoteSupport:
    """The actors of one coupling; travels to its tasks.

    Attributes:
        actors: in the order of their rows.
        num_rows: M, rows of all parts.
        rows_per_batch: rows that a task walks together.
    """

    actors: Sequence[ActorHandle]
    num_rows: int
    rows_per_batch: int


class _LostCountsError(Exception):
    """An actor knows nothing of a shard that it is asked about: it died, and was started again."""


def start(
    points: np.ndarray, spec: CouplingSpec, *, engine: str, num_parts: int, cpus_per_part: float, gpus_per_part: float
) -> RemoteSupport:
    """Splits the support among actors, on as many nodes as there are.

    Args:
        points: [M, D], the training part.
        engine: "cpu" or "cuda": where counts are kept. The pairs are those of this engine without parts.

    Raises:
        SpecError: the parts do not fit the coupling or the cluster.
    """
    if engine == "dense" or spec.temperature != 1:
        raise SpecError(
            f"support_parts: got {num_parts} parts with engine {engine!r} and temperature {spec.temperature}, expected "
            "engine cpu or cuda and temperature 1 (marginals are sums of floats, whose last bits show how they are "
            "split); unset PAIRFLOW_SUPPORT_PARTS"
        )
    for kind, each in (("CPU", cpus_per_part), ("GPU", gpus_per_part)):
        there = ray.cluster_resources().get(kind, 0)
        if each * num_parts > there:
            raise SpecError(
                f"support_parts: got {num_parts} parts of {each:g} {kind} each, expected no more than the cluster's "
                f"{there:g} {kind}s; lower PAIRFLOW_SUPPORT_PARTS or PAIRFLOW_{kind}S_PER_TASK, or add nodes"
            )
    chosen = support_rows(points, spec)
    slices = part_slices(len(chosen), num_parts)
    actor = _Part.options(  # type: ignore[attr-defined]
        num_cpus=cpus_per_part, num_gpus=gpus_per_part, max_restarts=_MAX_RESTARTS, scheduling_strategy="SPREAD"
    )
    largest = max(each.stop - each.start for each in slices)
    return RemoteSupport(
        [actor.remote(np.asfortranarray(chosen[each]), engine) for each in slices],
        len(chosen),
        max(1, min(_MAX_BATCH, _BYTES_PER_BATCH // largest)),
    )


def couple(
    target: np.ndarray,
    support: RemoteSupport,
    name: str,
    *,
    vocab_size: int,
    spec: CouplingSpec,
    sample_ids: np.ndarray,
    replicas: np.ndarray,
) -> Coupled:
    """`pairflow.coupling.couple_in_parts` against actors, begun anew when one of them was lost.

    Args:
        name: of this piece of work among all that ask the same actors.

    Raises:
        JobFailedError: actors were lost again and again.
    """
    for _ in range(_MAX_ATTEMPTS):
        parts = _RemoteParts(support, name)
        try:
            coupled = couple_in_parts(
                target,
                parts,
                vocab_size=vocab_size,
                spec=spec,
                sample_ids=sample_ids,
                replicas=replicas,
                rows_per_batch=support.rows_per_batch,
            )
            parts.forget()
        except (ray.exceptions.RayActorError, _LostCountsError):
            _wait_until_ready(support)
        else:
            return coupled
    _give_up(f"{_MAX_ATTEMPTS} attempts at one shard each lost a part of the support")


def _wait_until_ready(support: RemoteSupport) -> None:
    """Returns when all actors answer.

    Raises:
        JobFailedError: one is dead for good, or not back in time.
    """
    deadline = time.monotonic() + _RESTART_TIMEOUT_S
    for part, actor in enumerate(support.actors):
        while True:
            try:
                ray.get(actor.ready.remote(), timeout=max(0.0, deadline - time.monotonic()))
                break
            except ray.exceptions.ActorUnavailableError:
                time.sleep(0.2)  # and ask again, up to the deadline
            except ray.exceptions.GetTimeoutError:
                _give_up(f"part {part} was not back after {_RESTART_TIMEOUT_S:.0f} s")
            except ray.exceptions.RayActorError as error:
                _give_up(f"part {part} was lost for good after {_MAX_RESTARTS} restarts ({error})")


def _give_up(reason: str) -> NoReturn:
    raise JobFailedError(
        f"the support, split by PAIRFLOW_SUPPORT_PARTS, cannot be kept: {reason}; if the nodes' memory is short, use "
        "more parts; what is written stays, and a rerun makes only what is missing"
    )


class _RemoteParts:
    """A `pairflow.coupling.parts.SplitSupport` of actors: each question goes to all of them at once."""

    def __init__(self, support: RemoteSupport, name: str) -> None:
        self.num_rows = support.num_rows
        self._actors, self._name = support.actors, name

    def start(self, states: "Tensor") -> "Tensor":
        return self._ask_all("start", states.numpy())

    def scan(self, rows: "Tensor", moves: Moves) -> "Tensor":
        columns = (moves.offsets, moves.positions, moves.old, moves.new)
        return self._ask_all("scan", rows.numpy(), Moves(*(column.numpy() for column in columns)))

    def tokens(self, parts: "Tensor", draws: Draws) -> "Tensor":
        asked = {part: np.flatnonzero(parts.numpy() == part) for part in parts.unique().tolist()}
        columns = (draws.rows, draws.levels, draws.ranks, draws.positions)
        arrays = Draws(*(column.numpy() for column in columns))
        answers = ray.get(
            [
                self._actors[part].ask.remote(self._name, "tokens", select(arrays, where))
                for part, where in asked.items()
            ]
        )
        tokens = np.empty(len(parts), np.int64)
        for where, answer in zip(asked.values(), answers, strict=True):
            tokens[where] = answer
        return _tensor(tokens)

    def agreement(self, states: "Tensor", powers: "Tensor") -> "Tensor":
        return self._ask_all("agreement", states.numpy(), powers.numpy())

    def forget(self) -> None:
        """Frees the counts in all actors."""
        ray.get([actor.forget.remote(self._name) for actor in self._actors])

    def _ask_all(self, question: str, *arguments: Any) -> "Tensor":
        answers: list[np.ndarray] = ray.get(
            [actor.ask.remote(self._name, question, *arguments) for actor in self._actors]
        )
        return _tensor(np.stack(answers))


def _tensor(array: np.ndarray) -> "Tensor":
    import torch

    return torch.from_numpy(array)


@ray.remote
class _Part:
    """Holds a part of the support, and its match counts for each shard in flight."""

    def __init__(self, rows: np.ndarray, engine: str) -> None:
        self._new_part = _on_gpu(rows) if engine == "cuda" else _on_cpu(rows)
        self._parts: dict[str, SupportPart] = {}

    def ready(self) -> None:
        """Answers, which is all that is asked."""

    def ask(self, name: str, question: str, *arguments: Any) -> np.ndarray:
        """What the part that counts for `name` answers to a question of `SupportPart`."""
        if question == "start":
            self._parts[name] = self._new_part()
        if name not in self._parts:
            raise _LostCountsError(name)
        answer = getattr(self._parts[name], question)(*arguments)
        return answer if isinstance(answer, np.ndarray) else answer.cpu().numpy()

    def forget(self, name: str) -> None:
        """Frees the counts for `name`."""
        self._parts.pop(name, None)


def _on_cpu(rows: np.ndarray) -> Callable[[], SupportPart]:
    from pairflow.coupling.numba_part import NumbaPart

    return lambda: NumbaPart(rows.T)  # of an array in Fortran order, in the object store: no copy


def _on_gpu(rows: np.ndarray) -> Callable[[], SupportPart]:
    import torch

    from pairflow.coupling.cuda import choose_kernels
    from pairflow.coupling.tensor_part import TensorPart, columns_of

    device = torch.device("cuda")
    kernels, columns = choose_kernels(device, rows), columns_of(rows, device)
    return lambda: TensorPart(columns, kernels)
