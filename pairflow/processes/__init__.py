"""Noise processes: how data is corrupted, what the network is trained on, and how a reverse step is taken.

`PROCESSES` is the registry and `build` its dispatcher. t = 0 is the source (noise) and t = 1 is the data.
May import `schedule`, `rng` and `errors` of the library: a process knows no network.
"""

from collections.abc import Callable

from pairflow.errors import SpecError
from pairflow.processes.absorbing import AbsorbingProcess
from pairflow.processes.base import Prediction, Process
from pairflow.processes.uniform import UniformProcess

PROCESSES: dict[str, Callable[[int, Prediction], Process]] = {"absorbing": AbsorbingProcess, "uniform": UniformProcess}


def build(name: str, vocab_size: int, predicts: Prediction = "others") -> Process:
    """The process called `name` over `vocab_size` tokens, for networks that predict from what `predicts` says.

    Raises:
        SpecError: no process has that name.
    """
    if name not in PROCESSES:
        raise SpecError(f"process: got {name!r}, expected one of {', '.join(sorted(PROCESSES))}")
    return PROCESSES[name](vocab_size, predicts)


__all__ = ["PROCESSES", "AbsorbingProcess", "Prediction", "Process", "UniformProcess", "build"]
