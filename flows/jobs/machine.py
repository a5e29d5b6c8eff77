"""What a learning job makes of the machine that it was put on."""

import ctypes
import os
import platform

from flows.home.settings import Settings

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt(3)


def use_threads(num_threads: int | None, num_sharing: int = 1) -> None:
    """Lets torch use `num_threads` CPU threads; by default an even share of the cores that this process may run on.

    Ray gives the driver of a job OMP_NUM_THREADS=1, as it reserves no CPU for it. Jobs that run at the same time must
    not use more threads than there are cores: torch's threads wait for each other, and those of a small network
    then do little else.
    """
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(num_threads or max(1, cores // num_sharing))


def keep_freed_memory() -> None:
    """Has glibc keep what tensors free for the next ones, instead of giving it back to the system after every step.

    Without, a step of a small network takes some thousands of page faults (docs/operations.md); results are the same.
    """
    if platform.libc_ver()[0] == "glibc":
        library = ctypes.CDLL(None)
        for option, value in ((_TRIM_THRESHOLD, 2**31 - 1), (_MMAP_THRESHOLD, 2**30)):
            library.mallopt(option, value)


def in_use(settings: Settings) -> str:
    """What of the machine a training takes, in words: threads or a GPU, and how many workers."""
    import torch

    place = f"{torch.get_num_threads()} CPU threads"
    if torch.cuda.is_available():
        place = f"GPU {torch.cuda.get_device_name()}"
    return place if settings.train_workers == 1 else f"{settings.train_workers} workers, each of one CPU or GPU"
