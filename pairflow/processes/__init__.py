"""Noise processes: how data is corrupted, what the network is trained on, and how a reverse step is taken.

`PROCESSES` is the registry and `build` its dispatcher. t = 0 is the source (noise) and t = 1 is the data.
May import `schedule`, `rng`, `marginals` and `errors` of the library: a process knows no network.
"""

import torch

from pairflow.errors import SpecError
from pairflow.processes.absorbing import AbsorbingProcess
from pairflow.processes.base import Prediction, Process
from pairflow.processes.marginal import MarginalProcess
from pairflow.processes.uniform import UniformProcess

PROCESSES: dict[str, type[Process]] = {each.name: each for each in (AbsorbingProcess, MarginalProcess, UniformProcess)}


def is_of_the_data(name: str) -> bool:
    """Whether the process of that name is made of the data's marginals."""
    return name in PROCESSES and PROCESSES[name].of_the_data


def build(name: str, vocab_size: int, predicts: Prediction = "others", marginal: torch.Tensor | None = None) -> Process:
    """The process called `name` over `vocab_size` tokens, for networks that predict from what `predicts` says.

    Args:
        marginal: of the data, float64 [D, K], for a process that is `of_the_data`; others take no notice of it.

    Raises:
        SpecError: no process has that name, or it needs marginals and got none, or such as are none.
    """
    if name not in PROCESSES:
        raise SpecError(f"process: got {name!r}, expected one of {', '.join(sorted(PROCESSES))}")
    kind = PROCESSES[name]
    if issubclass(kind, MarginalProcess):
        return kind(vocab_size, predicts, marginal)
    return kind(vocab_size, predicts)


__all__ = [
    "PROCESSES",
    "AbsorbingProcess",
    "MarginalProcess",
    "Prediction",
    "Process",
    "UniformProcess",
    "build",
    "is_of_the_data",
]
