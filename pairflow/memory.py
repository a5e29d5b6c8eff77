"""What memory there is."""

from pathlib import Path

# Of a container, by version of cgroups: its limit, its use, and what of that is cached files that can be dropped.
_CGROUPS = (
    ("/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
    ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
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
