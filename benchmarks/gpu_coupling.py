"""The cuda engine on all of QM9, and the cpu engine on the same machine.

    python benchmarks/gpu_coupling.py --data DIR

Imports only numpy, torch, triton and numba, so that it runs on a bare machine that has a GPU. There the data set may
be missing as well: `--tokens FILE.npy` takes the training part's tokens, an array [M, D], as this writes it elsewhere:

    python benchmarks/gpu_coupling.py --save-tokens FILE.npy

The GPU couples every row, `--repeats` times, transfers included and compilation excluded; the cpu engine couples
`--cpu-rows` evenly spread rows in between, with all cores. Medians are compared.
"""

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from machine import write_results

from pairflow.coupling import couple, cuda

_VOCAB_SIZE = 43  # QM9's


@dataclass(frozen=True)
class _Spec:
    """The fields of `pairflow.spec.CouplingSpec` with their defaults, without pydantic."""

    num_steps: int = 20
    seed: int = 0
    temperature: float = 1.0
    epsilon: float = 1e-9
    kind: str = "closed_form"
    support_size: int | None = None


def _qm9() -> np.ndarray:
    from pairflow import datasets
    from pairflow.spec import DatasetSpec

    part = datasets.load(DatasetSpec(name="qm9")).part("train")
    if part.vocab_size != _VOCAB_SIZE:
        sys.exit(f"QM9's vocabulary has {part.vocab_size} tokens, expected {_VOCAB_SIZE}")
    return part.tokens


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=Path, help="QM9's training tokens as .npy; default: the registry's")
    parser.add_argument("--save-tokens", type=Path, help="only write them to this file")
    parser.add_argument("--cpu-rows", type=int, default=4000, help="rows coupled by the cpu engine a repeat")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    if options.save_tokens:
        np.save(options.save_tokens, _qm9())
        print(options.save_tokens)
        return
    if not torch.cuda.is_available():
        sys.exit(f"not measured: this machine has no CUDA device (torch {torch.__version__})")
    support = np.asfortranarray(np.load(options.tokens) if options.tokens else _qm9())
    chosen = np.linspace(0, len(support) - 1, min(options.cpu_rows, len(support))).astype(np.int64)
    spec = _Spec()
    device = torch.device("cuda")
    kernels = cuda.choose_kernels(device, support).__name__.rpartition(".")[2]
    for engine in ("cuda", "cpu"):
        couple(support[:2], support, vocab_size=_VOCAB_SIZE, spec=spec, engine=engine)  # compiles
    gpu_seconds, cpu_seconds = [], []
    for _ in range(options.repeats):
        started = time.perf_counter()
        by_gpu = couple(support, vocab_size=_VOCAB_SIZE, spec=spec, engine="cuda")
        gpu_seconds.append(time.perf_counter() - started)
        started = time.perf_counter()
        by_cpu = couple(support[chosen], support, vocab_size=_VOCAB_SIZE, spec=spec, sample_ids=chosen, engine="cpu")
        cpu_seconds.append(time.perf_counter() - started)
    gpu, cpu = float(np.median(gpu_seconds)), float(np.median(cpu_seconds)) * len(support) / len(chosen)
    result = {
        "dataset": "qm9",
        "support_size": len(support),
        "length": support.shape[1],
        "vocab_size": _VOCAB_SIZE,
        "num_steps": spec.num_steps,
        "device": torch.cuda.get_device_name(device),
        "torch": torch.__version__,
        "kernels": kernels,
        "gpu_whole_set_seconds": gpu,
        "gpu_peak_bytes": torch.cuda.max_memory_allocated(device),
        "cpu_whole_set_seconds": cpu,
        "cpu_whole_set_measured": len(chosen) == len(support),
        "ratio": cpu / gpu,
        "rows_that_differ": int((by_gpu[chosen] != by_cpu).any(axis=1).sum()),
    }
    for name, value in result.items():
        print(f"{name:24} {value}")
    print(write_results("gpu_coupling", [result]))


if __name__ == "__main__":
    main()
