"""The GPU engine: rows in lockstep on a CUDA device, by Triton's kernels where they run and torch's elsewhere.

The draws and decisions are those of the cpu engine, so the pairs should be too, bit for bit; the engine still has a
name and version of its own in every fingerprint, because a division or a product in float64 that rounds otherwise on
some device would change a pair now and then.

Memory is bounded: the support takes D·M tokens, a row of a batch M counts, and batches are as large as the device's
free memory allows. Several GPUs are several processes with one each: `flows.jobs` makes them Ray tasks.
"""

import logging
from collections.abc import Callable
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pairflow.coupling.result import Coupled
from pairflow.errors import SpecError

if TYPE_CHECKING:
    import torch

    from pairflow.spec import CouplingSpec


_MAX_BATCH = 32_768  # rows; more would not keep a GPU busier, and would report progress less often
_SHARE_OF_FREE = 0.8  # of the device's memory, so that a neighbour may still breathe
_WORKING_BYTES = 2**30  # intermediate tensors of the walk, whose size does not grow with the batch
_BYTES_PER_TOKEN = 400  # likewise, those that do: states, masks and histograms in int64
_LEAST_CAPABILITY = (7, 0)  # what Triton compiles for

_logger = logging.getLogger("pairflow.coupling")


def couple_rows(
    target: NDArray[np.unsignedinteger],
    support: NDArray[np.unsignedinteger],
    *,
    vocab_size: int,
    spec: "CouplingSpec",
    sample_ids: NDArray[np.uint64],
    replicas: NDArray[np.uint64],
    num_threads: int,
    progress: Callable[[int], None] | None = None,
) -> Coupled:
    """The engine's entry point, with the signature of `pairflow.coupling.cpu.couple_rows`.

    Args:
        num_threads: taken for the signature's sake; one thread waits for the GPU.

    Raises:
        SpecError: no GPU is there, or not even one row fits into its memory beside the support.
    """
    import torch

    if not torch.cuda.is_available():
        raise SpecError(
            "engine 'cuda' needs a CUDA device and a torch built for it, "
            f"got torch {torch.__version__}, which sees none; use engine='cpu'"
        )
    device = torch.device("cuda", torch.cuda.current_device())
    free, _ = torch.cuda.mem_get_info(device)
    free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # what torch keeps for itself
    rows_per_batch = batch_size(len(support), target.shape[1], support.itemsize, free)
    return couple_on(
        device,
        target,
        support,
        vocab_size=vocab_size,
        spec=spec,
        sample_ids=sample_ids,
        replicas=replicas,
        rows_per_batch=rows_per_batch,
        progress=progress,
    )


def couple_on(
    device: "torch.device",
    target: NDArray[np.unsignedinteger],
    support: NDArray[np.unsignedinteger],
    *,
    vocab_size: int,
    spec: "CouplingSpec",
    sample_ids: NDArray[np.uint64],
    replicas: NDArray[np.uint64],
    rows_per_batch: int,
    progress: Callable[[int], None] | None = None,
) -> Coupled:
    """`couple_rows` on a given device; on the CPU it runs torch's kernels, which is how it is tested without a GPU."""
    from pairflow.coupling.batches import couple_batches
    from pairflow.coupling.parts import LocalParts
    from pairflow.coupling.tensor_part import TensorPart, columns_of

    part = TensorPart(columns_of(support, device), choose_kernels(device, support))
    return couple_batches(
        target,
        LocalParts([part], len(support), device),
        vocab_size=vocab_size,
        spec=spec,
        sample_ids=sample_ids,
        replicas=replicas,
        rows_per_batch=rows_per_batch,
        device=device,
        progress=progress,
    )


def batch_size(num_rows: int, length: int, bytes_per_token: int, free: int) -> int:
    """Rows to walk together against `num_rows` rows of support, with `free` bytes of device memory.

    Raises:
        SpecError: not one row fits.
    """
    from pairflow.coupling.tensor_part import bytes_per_row

    fixed = _WORKING_BYTES + num_rows * length * bytes_per_token
    per_row = bytes_per_row(num_rows, length) + _BYTES_PER_TOKEN * length
    fitting = int((_SHARE_OF_FREE * free - fixed) // per_row)
    if fitting < 1:
        needed = (fixed + per_row) / _SHARE_OF_FREE
        raise SpecError(
            f"a support of {num_rows} rows of {length} tokens needs {needed / 2**30:.1f} GiB of free GPU memory, got "
            f"{free / 2**30:.1f} GiB; set PAIRFLOW_SUPPORT_PARTS to split it over several GPUs, coupling.support_size "
            "to take a subset of it, or use engine='cpu'"
        )
    return min(fitting, _MAX_BATCH)


def choose_kernels(device: "torch.device", support: NDArray[np.unsignedinteger]) -> ModuleType:
    """Triton's kernels if they run here and count as torch's do on some of the support's rows, or else torch's."""
    import torch

    from pairflow.coupling import torch_kernels

    if device.type != "cuda" or find_spec("triton") is None:
        return torch_kernels
    if torch.cuda.get_device_capability(device) < _LEAST_CAPABILITY:
        return torch_kernels
    from pairflow.coupling import triton_kernels
    from pairflow.coupling.kernel_check import disagreement

    if support.shape[1] > triton_kernels.MAX_LENGTH:
        return torch_kernels
    try:
        found = disagreement(triton_kernels, torch_kernels, support, device)
    except Exception as error:  # of Triton's compiler, which wants a C compiler among other things, or of the driver
        found = f"{type(error).__name__}: {error}"
    if found is None:
        return triton_kernels
    _logger.warning("Triton's kernels fail on %s (%s): torch's are used, which are slower", device, found)
    return torch_kernels
