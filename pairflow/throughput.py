"""How much of a machine a training uses: floating-point operations of a row, and the peak of known GPUs."""

import copy

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

# Dense bfloat16 peaks from NVIDIA's data sheets, FLOP/s; the first name that the device's name contains counts.
_PEAKS = (
    ("H200", 989e12),
    ("H100 PCIe", 756e12),
    ("H100 NVL", 835e12),
    ("H100", 989e12),
    ("A100", 312e12),
    ("A30", 165e12),
    ("A10G", None),  # sold with other clocks than the A10, and without a data sheet
    ("A10", 125e12),
    ("L40S", 362e12),
    ("L4", 121e12),
)


def training_flops(model: nn.Module, length: int) -> int:
    """Floating-point operations of one row, forward and backward, counted once on shapes alone.

    Matrix products, convolutions and attention count, two operations a multiply-add; elementwise work does not. That
    is what model FLOP utilisation (PaLM, arXiv 2204.02311, appendix B) is measured in.

    Args:
        model: as called by training; it is copied, and neither its weights nor any random state are touched.
        length: D.
    """
    from torch.utils.flop_counter import FlopCounterMode  # it loads Triton, which only GPUs are counted for

    shapes = copy.deepcopy(model).to("meta")
    x_t, t = torch.zeros(1, length, dtype=torch.int64, device="meta"), torch.zeros(1, device="meta")
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        shapes(x_t, t).sum().backward()
    return counter.get_total_flops()


def peak_flops(device_name: str) -> float | None:
    """Dense bfloat16 FLOP/s of a GPU by `torch.cuda.get_device_name`, or None where it is not known."""
    return next((peak for name, peak in _PEAKS if name in device_name), None)
