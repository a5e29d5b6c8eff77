"""A support in parts: what the walk of `lockstep` asks of a part, and how the answers are put together.

A posterior draw is a draw of a level (a match count) by hist[l]·γ^l and of a row by its rank at this level. Histograms
are integers, so those of the parts add up to that of the whole support exactly, and the row of a rank lies in the part
where the running sum of the parts' numbers passes it, if the parts are runs of consecutive rows in order. So a part
answers with a histogram a row and one token a draw, and any number of parts gives the same pairs as one, bit for bit.
At τ ≠ 1 a part adds sums of weights, floats: there the number of parts shows in their last bits.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol

from pairflow.errors import SpecError

if TYPE_CHECKING:  # a process with a part of numba's has no use for torch
    import torch
    from torch import Tensor

# What a part takes and returns: numpy arrays or tensors, so that a part may live in a process without torch.
Array = Any


@dataclass(frozen=True, eq=False)
class Moves:
    """How the states of R rows differ from those that their match counts were made for.

    Attributes:
        offsets: [R+1] int64, the moves of row r are those from offsets[r] to offsets[r+1].
        positions: [N] int64, where a token changed.
        old: [N] int64, from which token.
        new: [N] int64, to which.
    """

    offsets: Array
    positions: Array
    old: Array
    new: Array


@dataclass(frozen=True, eq=False)
class Draws:
    """Rows of the support that are asked for, by the order in which they lie in it.

    Attributes:
        rows: [N] int64, which of the rows scanned last.
        levels: [N] int64, how many tokens the drawn row shares with this row's state.
        ranks: [N] int64, how many rows at this level come before the drawn one.
        positions: [N] int64, at which position the drawn row's token is wanted.
    """

    rows: Array
    levels: Array
    ranks: Array
    positions: Array


class SupportPart(Protocol):
    """A run of rows of the support, and the match counts of one batch of B states against each of its rows.

    Attributes:
        largest_token: that its rows' type holds; a larger one cannot be compared with them.
    """

    @property
    def largest_token(self) -> int: ...

    def start(self, states: Array) -> Array:
        """Begins a batch at `states` [B, D] int64 and returns its histograms, [B, D+1] int64."""

    def scan(self, rows: Array, moves: Moves) -> Array:
        """Brings the counts of `rows` [R] (of the batch) up to date; their histograms, [R, D+1] int64."""

    def tokens(self, draws: Draws) -> Array:
        """The drawn rows' tokens, [N] int64; each level of a row must hold more rows than the draw's rank."""

    def agreement(self, states: Array, powers: Array) -> Array:
        """Σ_m powers[r, count_m]·1[d_m^i = z_r^i] for the rows scanned last, at `states` [R, D]: [R, D] float64."""


class SplitSupport(Protocol):
    """All parts of a support; each method asks every part, or only those that have something to tell."""

    @property
    def num_rows(self) -> int:
        """M, rows of all parts."""

    def start(self, states: "Tensor") -> "Tensor":
        """As `SupportPart.start`, of every part: [P, B, D+1]."""

    def scan(self, rows: "Tensor", moves: Moves) -> "Tensor":
        """As `SupportPart.scan`, of every part: [P, R, D+1]."""

    def tokens(self, parts: "Tensor", draws: Draws) -> "Tensor":
        """As `SupportPart.tokens`; `parts` [N] says which part is asked for each draw."""

    def agreement(self, states: "Tensor", powers: "Tensor") -> "Tensor":
        """As `SupportPart.agreement`, of every part: [P, R, D]."""


class LocalParts:
    """Parts in this process, asked one after the other.

    Args:
        parts: in the order of their rows.
        num_rows: M, rows of all parts.
        device: where answers are wanted.
    """

    def __init__(self, parts: Sequence[SupportPart], num_rows: int, device: "torch.device"):
        self.num_rows = num_rows
        self._parts, self._device = parts, device

    def check(self, vocab_size: int) -> None:
        """Raises SpecError for a part that cannot be compared with every token of the vocabulary, which walks visit."""
        for part in self._parts:
            if part.largest_token < vocab_size - 1:
                raise SpecError(
                    f"support: got a part of a type that holds tokens up to {part.largest_token}, expected up to "
                    f"{vocab_size - 1} (vocab_size {vocab_size}); make the parts of a wider type"
                )

    def start(self, states: "Tensor") -> "Tensor":
        """See `SplitSupport`."""
        return self._stack([part.start(states) for part in self._parts])

    def scan(self, rows: "Tensor", moves: Moves) -> "Tensor":
        """See `SplitSupport`."""
        return self._stack([part.scan(rows, moves) for part in self._parts])

    def tokens(self, parts: "Tensor", draws: Draws) -> "Tensor":
        """See `SplitSupport`."""
        import torch

        tokens = torch.empty_like(draws.positions)
        for part, asked in enumerate(self._parts):
            chosen = (parts == part).nonzero()[:, 0]
            if len(chosen):
                tokens[chosen] = torch.as_tensor(asked.tokens(select(draws, chosen)), device=self._device)
        return tokens

    def agreement(self, states: "Tensor", powers: "Tensor") -> "Tensor":
        """See `SplitSupport`."""
        return self._stack([part.agreement(states, powers) for part in self._parts])

    def _stack(self, answers: list[Array]) -> "Tensor":
        import torch

        return torch.stack([torch.as_tensor(answer, device=self._device) for answer in answers])


def select(draws: Draws, chosen: Array) -> Draws:
    """The draws at the indices `chosen`."""
    return Draws(draws.rows[chosen], draws.levels[chosen], draws.ranks[chosen], draws.positions[chosen])


def part_slices(num_rows: int, num_parts: int) -> list[slice]:
    """Runs of consecutive rows whose sizes differ by at most one; fewer than `num_parts` if there are fewer rows."""
    num_parts = min(num_parts, num_rows)
    bounds = [num_rows * part // num_parts for part in range(num_parts + 1)]
    return [slice(start, stop) for start, stop in pairwise(bounds)]
