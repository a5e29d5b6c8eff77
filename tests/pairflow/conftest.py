"""Settings of all tests of the library."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

# The exact denoiser is a module that several tests import.
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True, scope="session")
def one_torch_thread() -> Iterator[None]:
    """Tiny tensors gain nothing from threads, and on a busy machine their barriers cost a hundredfold."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)
