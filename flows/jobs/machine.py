"""What a learning job makes of the machine that it was put on."""

import os


def use_threads(num_threads: int | None) -> None:
    """Lets torch use `num_threads` CPU threads, by default one for every core that this process may run on.

    Ray gives the driver of a job OMP_NUM_THREADS=1, as it reserves no CPU for it; but nothing else of ours runs while a
    model trains.
    """
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    torch.set_num_threads(num_threads or cores or 1)
