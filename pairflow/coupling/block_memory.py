"""What a block of an assignment takes in memory, and what there is."""

from pairflow.errors import SpecError
from pairflow.memory import free_memory

_PER_ROW = 256  # bytes: duals, paths, draws' share, and the block's own tokens for all but very long rows


def block_bytes(size: int, length: int, bytes_per_pair: int) -> int:
    """Memory that a block takes at its peak: the match counts of B² pairs, and what grows with B."""
    return size * size * bytes_per_pair + size * (_PER_ROW + 4 * length)


def blocks_that_fit(size: int, length: int, bytes_per_pair: int) -> int:
    """How many blocks of `size` rows free memory holds at once, at least 1.

    Raises:
        SpecError: it does not hold one; says what size it would.
    """
    free = free_memory()
    needed = block_bytes(size, length, bytes_per_pair)
    if needed <= free:
        return free // needed
    fits = 1
    while block_bytes(2 * fits, length, bytes_per_pair) <= free:
        fits *= 2
    raise SpecError(
        f"block_size: blocks of {size:,} rows take {needed / 2**30:.2f} GiB and {free / 2**30:.2f} GiB of memory are "
        f"free; expected at most block_size {fits:,}, which fits"
    )
