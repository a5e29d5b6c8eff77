"""How the pairs of an assignment are cut into blocks, and in which order they are stored."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from pairflow.spec import CouplingSpec

_DEFAULT_BLOCK_SIZE = 4096  # for specs that were not validated, as pairflow.spec has it


@dataclass(frozen=True)
class Block:
    """Rows that are matched together.

    Attributes:
        replica: which source of each row this makes.
        start: first place in the replica's order of rows.
        stop: place after the last.
        first_pair: number of its first pair in the store's order.
    """

    replica: int
    start: int
    stop: int
    first_pair: int


@dataclass(frozen=True)
class BlockPlan:
    """How R·M pairs are cut into blocks, and in which order they are stored.

    A replica's rows are cut into as few blocks as there can be of at most `block_size` rows, of one size but for the
    last, which makes up for what does not divide: none is much smaller than the others, as small blocks are less
    straight. The store has the whole blocks first, replica after replica, and then the replicas' last, smaller ones: so
    shards of a multiple of `size` pairs cut no whole block, for any number of replicas.

    Attributes:
        num_rows: M.
        size: rows a block.
        replicas: R.
    """

    num_rows: int
    size: int
    replicas: int

    @classmethod
    def of(cls, num_rows: int, spec: "CouplingSpec") -> Self:
        """For the data and the spec; more rows a block than there are means all rows."""
        wanted = min(spec.block_size or _DEFAULT_BLOCK_SIZE, num_rows)
        return cls(num_rows, -(-num_rows // -(-num_rows // wanted)), spec.sources_per_target)

    @property
    def num_pairs(self) -> int:
        return self.num_rows * self.replicas

    @property
    def num_blocks(self) -> int:
        return self.replicas * -(-self.num_rows // self.size)

    def block(self, number: int) -> Block:
        """A block by its number in the store's order."""
        whole, rest = divmod(self.num_rows, self.size)
        if number < whole * self.replicas:
            replica, place = divmod(number, whole)
            return Block(replica, place * self.size, (place + 1) * self.size, number * self.size)
        replica = number - whole * self.replicas
        first_pair = whole * self.replicas * self.size + replica * rest
        return Block(replica, whole * self.size, self.num_rows, first_pair)

    def blocks(self, start: int, stop: int) -> list[Block]:
        """Those that have any of the pairs `start` to `stop` (exclusive) of the store's order."""
        return [self.block(number) for number in range(self._number(start), self._number(stop - 1) + 1)]

    def _number(self, pair: int) -> int:
        whole, rest = divmod(self.num_rows, self.size)
        in_whole = whole * self.replicas * self.size
        return pair // self.size if pair < in_whole else whole * self.replicas + (pair - in_whole) // rest
