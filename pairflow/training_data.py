"""What a training is given to train on, checked, and put where it lies while it trains."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from pairflow.batches import Batches, Epochs, data_digest
from pairflow.errors import SpecError
from pairflow.marginals import MarginalCounts
from pairflow.memory import free_memory
from pairflow.replicas import Replica
from pairflow.row_source import Array, Held, RowSource, columns_of, num_bytes, read_all, shards, survey
from pairflow.spec import OptimizerSpec
from pairflow.streaming import StreamedBatches

Placement = Literal["auto", "resident", "streamed"]

_HELD_WINDOW_BYTES = 8 * 1024 * 1024
_SHARE_RESIDENT, _SHARE_STREAMED = 1 / 2, 1 / 4  # of the free memory, that training data may take by default


@dataclass(frozen=True)
class Placing:
    """Where the data of a training lie while it trains. Never changes what it trains on.

    Attributes:
        placement: 'resident', all on the device; 'streamed', read while they are used; 'auto', the former where that
            takes up to half of the free memory, of the device and of the machine.
        memory_bytes: of tokens that a process holds where they are streamed; by default a quarter of the machine's
            free memory, shared by all replicas. Where that holds all of them they are read once, and stay there; but of
            several replicas each reads its own rows.
    """

    placement: Placement = "auto"
    memory_bytes: int | None = None

    def check(self) -> None:
        """Raises SpecError for a bound that is no number of bytes."""
        if self.memory_bytes is not None and self.memory_bytes < 1:
            raise SpecError(f"memory_bytes: got {self.memory_bytes}, expected at least 1")

    def is_resident(self, rows: RowSource, vocab_size: int, device: torch.device, replica: Replica) -> bool:
        """Whether all rows are to lie on the device.

        Raises:
            SpecError: they are to, and memory does not hold them.
        """
        if self.placement == "streamed":
            return False
        stored = 0 if isinstance(rows, Held) else num_bytes(rows)
        tokens = rows.target.shape[0] * rows.target.shape[1] * len(columns_of(rows))
        placed = tokens * (1 if vocab_size <= 256 else 8)
        on_cpu = device.type == "cpu"
        free = free_memory() // replica.world_size
        needs = [("memory", stored + (placed if on_cpu else 0), free)]
        if not on_cpu:
            needs.append((f"memory of {device}", placed, torch.cuda.mem_get_info(device)[0]))
        if self.placement == "auto":
            return all(needed <= _SHARE_RESIDENT * there for _, needed, there in needs)
        for what, needed, there in needs:
            if needed > there:
                raise SpecError(
                    f"placement: got 'resident' (a job's PAIRFLOW_TRAINING_DATA), but {rows.target.shape[0]:,} rows "
                    f"need {needed / 2**30:.1f} GiB of {what} and {there / 2**30:.1f} GiB are free; use 'streamed', or "
                    "'auto', with the same result"
                )
        return True


@dataclass(frozen=True, eq=False)
class TrainingData:
    """Rows in their place.

    Attributes:
        rows: to train on.
        digest: of their tokens, `data_digest`: a checkpoint is of these rows, wherever they lie.
        length: D.
        resident: whether they are to lie on the device.
        placing: as it was asked for.
    """

    rows: RowSource
    digest: str
    length: int
    resident: bool
    placing: Placing

    @classmethod
    def of(
        cls,
        target: Array | RowSource,
        source: Array | None,
        vocab_size: int,
        placing: Placing | None,
        device: torch.device,
        replica: Replica,
    ) -> "TrainingData":
        """Data that `check_data` has passed; of stored ones, which it does not read, every token is read and checked.

        Raises:
            SpecError: a stored token is not below the vocabulary's size, or memory does not hold the rows that it must.
        """
        placing = Placing() if placing is None else placing
        placing.check()
        rows = target if isinstance(target, RowSource) else Held(target, source)
        resident = placing.is_resident(rows, vocab_size, device, replica)
        if resident:
            rows = Held(*read_all(rows))
        if isinstance(target, np.ndarray):
            digest = data_digest(target, source)
        else:
            digest = replica.from_first(lambda: survey(rows, vocab_size))
        return cls(rows, digest, rows.target.shape[1], resident, placing)

    def marginals(self, vocab_size: int, replica: Replica) -> torch.Tensor:
        """How often a token stands at a position, float64 [D, K]; of stored rows, every target is read.

        Raises:
            SpecError: D·K is beyond what a table of it may take.
        """

        def count() -> np.ndarray:
            counts = MarginalCounts(self.length, vocab_size)
            for block in shards(self.rows, "target"):
                counts.add(block)
            return counts.marginals()

        return torch.from_numpy(replica.from_first(count))

    def epochs(self, spec: OptimizerSpec, device: torch.device, replica: Replica) -> Epochs:
        """The batches of a training, of which a replica reads its own rows; close them when it ends."""
        rows, memory_bytes = self.rows, self.placing.memory_bytes
        if self.resident:
            return Batches(*read_all(rows), batch_size=spec.batch_size, seed=spec.seed, device=device)
        if memory_bytes is None:
            memory_bytes = int(_SHARE_STREAMED * free_memory()) // replica.world_size
        if not isinstance(rows, Held) and num_bytes(rows) <= memory_bytes and replica.world_size == 1:
            rows = Held(*read_all(rows))
        return StreamedBatches(
            rows,
            batch_size=spec.batch_size,
            seed=spec.seed,
            num_steps=spec.num_steps,
            memory_bytes=min(memory_bytes, _HELD_WINDOW_BYTES) if isinstance(rows, Held) else memory_bytes,
            device=device,
            replica=replica,
        )
