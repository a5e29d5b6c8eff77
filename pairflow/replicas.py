"""Several processes that train one model together: each computes its share of every batch (torch.distributed)."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TypeVar, cast

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from pairflow.errors import PairFlowError, SpecError

_Made = TypeVar("_Made")


@dataclass(frozen=True)
class Replica:
    """This process's place among the others; one process alone by default.

    Every process draws the same whole batch and takes its own rows of it, so n processes train on the rows, times and
    noise that one would: the loss differs by rounding, and by dropout, which each draws for its rows. The first process
    writes the checkpoints; all must begin with the same ones in their folders, be that one folder or several.

    Attributes:
        rank: from 0.
        world_size: number of processes.
    """

    rank: int = 0
    world_size: int = 1

    @classmethod
    def current(cls) -> "Replica":
        """The place in torch's process group, which Ray Train or torchrun has made; alone without one."""
        if not (distributed.is_available() and distributed.is_initialized()):
            return cls()
        return cls(distributed.get_rank(), distributed.get_world_size())

    def check(self, batch_size: int, accumulate: int) -> None:
        """Raises SpecError if the batch cannot be cut into equal parts."""
        if batch_size % (self.world_size * accumulate):
            raise SpecError(
                f"batch_size: got {batch_size}, expected a multiple of {self.world_size * accumulate}: "
                f"{self.world_size} workers × accumulate {accumulate}"
            )

    def wrap(self, model: nn.Module, device: torch.device) -> nn.Module:
        """The network as it is called: with others, its gradients are averaged over all processes."""
        if self.world_size == 1:
            return model
        return DistributedDataParallel(model, device_ids=[device] if device.type == "cuda" else None)

    def share(self, rows: torch.Tensor) -> torch.Tensor:
        """This process's rows of a batch."""
        return rows.chunk(self.world_size)[self.rank]

    def gradients(self, network: nn.Module, *, last: bool) -> AbstractContextManager[None]:
        """Around the backward pass of a part: gradients are exchanged once a batch, with its last part."""
        if isinstance(network, DistributedDataParallel) and not last:
            return network.no_sync()
        return nullcontext()

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """The mean over all processes, the same in each."""
        if self.world_size > 1:
            distributed.all_reduce(values)
            values /= self.world_size
        return values

    def from_first(self, make: Callable[[], _Made]) -> _Made:
        """What the first process makes, in each; what it raises of ours, all raise."""
        made: list[_Made | PairFlowError | None] = [None]
        if self.rank == 0:
            try:
                made = [make()]
            except PairFlowError as error:
                made = [error]
        if self.world_size > 1:
            distributed.broadcast_object_list(made, src=0)
        if isinstance(made[0], PairFlowError):
            raise made[0]
        return cast("_Made", made[0])

    def all_well(self, well: bool) -> bool:
        """Whether all processes say so, once all are here."""
        if self.world_size == 1:
            return well
        faults = torch.tensor(0.0 if well else 1.0, device=_device())
        distributed.all_reduce(faults)
        return faults.item() == 0


def _device() -> str:
    """Where what is exchanged must lie: NCCL knows GPUs alone."""
    return "cuda" if distributed.get_backend() == "nccl" else "cpu"
