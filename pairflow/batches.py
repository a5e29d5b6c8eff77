"""Training data on the device, in an order that is a pure function of (seed, step).

So a run that is resumed at a step sees the same rows, times and noise as one that was never interrupted, and
a checkpoint needs to hold no random state.
"""

import hashlib
from abc import ABC, abstractmethod
from enum import IntEnum
from typing import Self

import numpy as np
import torch

from pairflow.errors import SpecError

_ROWS_PER_HASH = 4096


class Stream(IntEnum):
    """Independent streams of randomness under one training seed."""

    WEIGHTS = 0
    ORDER = 1
    NOISE = 2
    DROPOUT = 3
    VALIDATION = 4
    TIMES = 5


def stream_seed(seed: int, stream: Stream, index: int = 0) -> int:
    """A 63-bit seed for torch's generators, a pure function of its arguments."""
    words = np.random.SeedSequence([seed, int(stream), index]).generate_state(1, np.uint64)
    return int(words[0]) >> 1


def stratified_times(batch_size: int, epsilon: float, generator: torch.Generator) -> torch.Tensor:
    """Antithetic times: one uniform draw in each of B equal strata of [ε, 1 − ε], float32 [B]."""
    offsets = torch.arange(batch_size, device=generator.device)
    draws = torch.rand(batch_size, generator=generator, device=generator.device)
    return (epsilon + (1 - 2 * epsilon) * (offsets + draws) / batch_size).clamp(epsilon, 1 - epsilon)


class Epochs(ABC):
    """The rows of every step, wherever they lie.

    Epochs are seeded permutations laid end to end, cut every `batch_size` rows: no row is dropped, and a batch may be
    larger than the data. One epoch's order is in memory, four bytes a row.

    Attributes:
        num_rows: M.
        batch_size: B.
        seed: of the order.
        device: where batches come to lie.
    """

    def __init__(self, num_rows: int, *, batch_size: int, seed: int, device: torch.device) -> None:
        self.num_rows = num_rows
        self.batch_size = batch_size
        self.seed = seed
        self.device = device
        self._epoch: tuple[int, np.ndarray] = (-1, np.empty(0, np.uint32))

    @abstractmethod
    def batch(self, step: int) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(target, source or None) of a step, int64 [B, D] on the device."""

    def close(self) -> None:
        """Ends what runs beside the training; nothing does by default."""
        return

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def rows(self, step: int) -> np.ndarray:
        """Row numbers of the batch of a step (from 0), int64 [B]."""
        position, stop = step * self.batch_size, (step + 1) * self.batch_size
        parts = []
        while position < stop:
            epoch, offset = divmod(position, self.num_rows)
            part = self._permutation(epoch)[offset : offset + stop - position]
            parts.append(part)
            position += len(part)
        return np.concatenate(parts).astype(np.int64)

    def _permutation(self, epoch: int) -> np.ndarray:
        held, order = self._epoch
        if held != epoch:
            self._epoch = (-1, order[:0].copy())  # two epochs' orders are never in memory at once
            del order
            generator = np.random.default_rng([self.seed, int(Stream.ORDER), epoch])
            # The draws of Generator.permutation(M), in half of its memory.
            order = np.arange(self.num_rows, dtype=np.uint32 if self.num_rows <= 2**32 else np.int64)
            generator.shuffle(order)
            self._epoch = (epoch, order)
        return order


class Batches(Epochs):
    """Rows of the targets and, for the paired coupling, of their stored sources, from arrays on the device.

    They stay there in a small dtype; a batch is int64.
    """

    def __init__(
        self,
        target: np.ndarray,
        source: np.ndarray | None,
        *,
        batch_size: int,
        seed: int,
        device: torch.device,
    ) -> None:
        super().__init__(len(target), batch_size=batch_size, seed=seed, device=device)
        self._target = to_tensor(target, device)
        self._source = None if source is None else to_tensor(source, device)

    def batch(self, step: int) -> tuple[torch.Tensor, torch.Tensor | None]:
        rows = torch.from_numpy(self.rows(step)).to(self.device)
        source = None if self._source is None else self._source[rows].long()
        return self._target[rows].long(), source


def check_tokens(name: str, tokens: np.ndarray, *, vocab_size: int, length: int | None = None) -> None:
    """A training array must be integers [M, D] below the vocabulary's size.

    Raises:
        SpecError: what does not fit, with what was expected.
    """
    if not isinstance(tokens, np.ndarray) or tokens.ndim != 2:
        got = f"shape {tokens.shape}" if isinstance(tokens, np.ndarray) else type(tokens).__name__
        raise SpecError(f"{name}: got {got}, expected a numpy array of tokens [M, D]")
    if not np.issubdtype(tokens.dtype, np.integer):
        raise SpecError(f"{name}: got dtype {tokens.dtype}, expected integers: tokens from 0 to vocab_size − 1")
    if 0 in tokens.shape:
        raise SpecError(f"{name}: got shape {tokens.shape}, expected at least one row and one token a row")
    if length is not None and tokens.shape[1] != length:
        raise SpecError(f"{name}: got rows of {tokens.shape[1]} tokens, expected {length} as in target")
    check_range(name, tokens, vocab_size)


def check_range(name: str, tokens: np.ndarray, vocab_size: int) -> None:
    """Tokens must be below the vocabulary's size.

    Raises:
        SpecError: one is not.
    """
    low, high = int(tokens.min()), int(tokens.max())
    if low < 0 or high >= vocab_size:
        raise SpecError(
            f"{name}: got tokens from {low} to {high}, expected 0 to {vocab_size - 1}; give the vocabulary's "
            "size, which may be larger than the largest token seen"
        )


def data_digest(*arrays: np.ndarray | None) -> str:
    """SHA-256 (hex) over the shapes and token values of arrays; the integer dtype does not matter."""
    digest = DataDigest()
    for array in arrays:
        digest.begin(None if array is None else array.shape)
        if array is not None:
            digest.update(array)
    return digest.hexdigest()


class DataDigest:
    """The same, fed in pieces: `begin` says the shape of an array, and `update` its rows, in any number of blocks."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def begin(self, shape: tuple[int, ...] | None) -> None:
        """The next array, or None for one that is not there."""
        self._digest.update(f"{shape};".encode())

    def update(self, rows: np.ndarray) -> None:
        """Its next rows."""
        for start in range(0, len(rows), _ROWS_PER_HASH):
            self._digest.update(np.ascontiguousarray(rows[start : start + _ROWS_PER_HASH], dtype="<u4").data)

    def hexdigest(self) -> str:
        """Of all that was said, 64 digits."""
        return self._digest.hexdigest()


def to_tensor(tokens: np.ndarray, device: torch.device) -> torch.Tensor:
    """Tokens on a device in the smallest dtype that torch indexes well: uint8 or int64."""
    dtype = np.uint8 if tokens.max() <= np.iinfo(np.uint8).max else np.int64
    return torch.from_numpy(tokens.astype(dtype)).to(device)
