"""Where tensors live: one place that turns a device's name into a device."""

import torch

from pairflow.errors import SpecError


def resolve_device(device: str | torch.device = "auto") -> torch.device:
    """'auto' (CUDA when there is one, else the CPU), or a name such as 'cpu' or 'cuda:1', as a device.

    Raises:
        SpecError: not a device's name, or a CUDA device that this machine does not have.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
    except RuntimeError:
        raise SpecError(f"device: got {device!r}, expected 'auto', 'cpu', 'cuda' or 'cuda:N'") from None
    if resolved.type not in ("cpu", "cuda"):
        raise SpecError(
            f"device: got {device!r}; draws are made in float64, so only 'cpu' and 'cuda' devices are supported"
        )
    if resolved.type == "cuda" and (resolved.index or 0) >= torch.cuda.device_count():
        raise SpecError(
            f"device: got {device!r}, but torch sees {torch.cuda.device_count()} CUDA devices; use 'auto' or 'cpu'"
        )
    return resolved


def autocast(device: torch.device) -> torch.autocast:
    """bfloat16 for the network's matrix products on a GPU; float32 throughout on the CPU."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda")
