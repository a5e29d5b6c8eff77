"""What a block of an assignment takes in memory, and what there is."""

from pathlib import Path

from pairflow.errors import SpecError

_PER_ROW = 256  # bytes: duals, paths, draws' share, and the block's own tokens for all but very long rows
# Of a container, by version of cgroups: its limit, its use, and what of that is cached files that can be dropped.
_CGROUPS = (
    ("/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
    ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def block_bytes(size: int, length: int) -> int:
    """Memory that a block takes at its peak: the match counts of B² pairs, and what grows with B."""
    return size * size * (1 if length < 256 else 2) + size * (_PER_ROW + 4 * length)


def blocks_that_fit(size: int, length: int) -> int:
    """How many blocks of `size` rows free memory holds at once, at least 1.

    Raises:
        SpecError: it does not hold one; says what size it would.
    """
    free = free_memory()
    needed = block_bytes(size, length)
    if needed <= free:
        return free // needed
    fits = 1
    while block_bytes(2 * fits, length) <= free:
        fits *= 2
    raise SpecError(
        f"block_size: blocks of {size:,} rows take {needed / 2**30:.2f} GiB and {free / 2**30:.2f} GiB of memory are "
        f"free; expected at most block_size {fits:,}, which fits"
    )


def free_memory() -> int:
    """Bytes that this process can still take: of the machine, or of its container if that is less."""
    import psutil

    free = int(psutil.virtual_memory().available)
    for folder, limit, used, cached in _CGROUPS:
        try:
            statistics = dict(line.split() for line in Path(folder, "memory.stat").read_text().splitlines())
            taken = int(Path(folder, used).read_text()) - int(statistics.get(cached, 0))
            free = min(free, int(Path(folder, limit).read_text()) - taken)
        except (OSError, ValueError):  # no container, or "max"
            continue
    return max(0, free)
