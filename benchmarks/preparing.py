"""What preparing a dataset costs: by two tasks, one, and none, beside RDKit's parsing alone; opening; memory.

    python benchmarks/preparing.py                  # QM9, as PAIRFLOW_DATA_DIR has it; about two minutes
    python benchmarks/preparing.py --rows 5000000   # and so many random SMILES of QM9's and ZINC's molecules, in /tmp

All figures of one run are of the same rows, in turns; medians are compared. Two tasks run
at a time on a cluster of two CPUs, beside the process that reads and merges.
"""

import itertools
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import psutil
import ray
import typer
from machine import write_results
from rdkit import Chem, rdBase
from rich.console import Console
from rich.table import Table

from flows.home.settings import Settings
from flows.jobs import prepared_data
from pairflow import datasets
from pairflow.datasets import Preparation, TokenDataset
from pairflow.datasets.pieces import prepare
from pairflow.datasets.smiles_files import iterate_smiles
from pairflow.spec import DatasetSpec

_SEED = 7


def main(
    rows: Annotated[int, typer.Option(help="Random SMILES of the part on memory; 0: none.")] = 0,
    repeats: Annotated[int, typer.Option(help="Turns.")] = 3,
    scratch: Annotated[Path, typer.Option(help="Folder of what is made.")] = Path("/tmp"),  # noqa: S108
) -> None:
    """Prints a table and writes benchmarks/results/preparing.json."""
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # loopback only
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        settings = Settings(home=Path(folder), store_url=f"{folder}/store")
        ray.init(
            num_cpus=2,
            include_dashboard=False,
            _node_ip_address="127.0.0.1",
            object_store_memory=2**30,
            log_to_driver=False,
        )
        spec = DatasetSpec(name="qm9")
        figures = _speed(spec, settings, repeats) | _opening(spec, settings, repeats)
        if rows:
            source = Path(folder) / "random.smi"
            _write_random(source, rows)
            figures["memory"] = _memory(DatasetSpec(name="smiles", path=str(source)), settings)
        ray.shutdown()
    write_results("preparing", [figures])
    table = Table("figure", "value")
    for name, value in figures.items():
        table.add_row(name, f"{value:,.3f}" if isinstance(value, float) else str(value))
    Console().print(table)


def _timed(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _speed(spec: DatasetSpec, settings: Settings, repeats: int) -> dict[str, Any]:
    plan = _plan(spec, settings)
    recipe = plan.recipe
    assert recipe is not None
    texts = [text for path in plan.source.files for text in iterate_smiles(path)]

    def parse() -> None:
        with rdBase.BlockLogs():
            for text in texts:
                Chem.MolFromSmiles(text)

    def in_process() -> TokenDataset:
        return plan.assemble(prepare(piece, recipe) for piece in plan.pieces())

    def in_tasks() -> TokenDataset:
        return plan.assemble(prepared_data.in_tasks(plan.pieces(), recipe, settings))

    def in_one_task() -> TokenDataset:
        return plan.assemble(prepared_data.in_tasks(plan.pieces(), recipe, settings, num_workers=1))

    def read() -> None:
        for _ in plan.pieces():
            pass

    assert in_process().digest == in_tasks().digest  # and the workers are there
    work = {"parse": parse, "read": read, "in_process": in_process, "in_one_task": in_one_task, "in_tasks": in_tasks}
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(repeats):
        for name, each in work.items():
            seconds[name].append(_timed(each))
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "rows": len(texts),
        "seconds": seconds,
        "rows_per_second_rdkit_parsing": len(texts) / medians["parse"],
        "rows_per_second_in_process": len(texts) / medians["in_process"],
        "share_of_rdkit_parsing": medians["parse"] / medians["in_process"],
        "share_of_reading": medians["read"] / medians["in_process"],
        "two_tasks_over_one_process": medians["in_process"] / medians["in_tasks"],
        "two_tasks_over_one_task": medians["in_one_task"] / medians["in_tasks"],
    }


def _opening(spec: DatasetSpec, settings: Settings, repeats: int) -> dict[str, float]:
    """From the hash of the source to the rows: what a job does that finds them."""
    _, known_as, _ = prepared_data.open_or_make(spec, settings)
    cold = [_timed(lambda: prepared_data.open_or_make(spec, settings)) for _ in range(repeats)]
    known = [_timed(lambda: prepared_data.open_or_make(spec, settings, known_as=known_as)) for _ in range(repeats)]
    return {"seconds_to_open_hashing_the_source": statistics.median(cold), "seconds_to_open": statistics.median(known)}


def _write_random(path: Path, rows: int) -> None:
    """Random SMILES of the molecules of QM9 and of ZINC-250k's local part, each as often as it takes."""
    texts: list[str] = []
    for name in ("qm9", "zinc-250k"):
        for each in datasets.prepare(DatasetSpec.model_validate({"name": name}), progress=False).source.files:
            texts += iterate_smiles(each)
    each_s = -(-rows // len(texts))
    with path.open("w") as stream, rdBase.BlockLogs():
        written = 0
        for number, text in enumerate(itertools.cycle(texts)):
            molecule = Chem.MolFromSmiles(text)
            if molecule is None:
                continue
            made = Chem.MolToRandomSmilesVect(molecule, min(each_s, rows - written), randomSeed=_SEED + number)
            stream.write("\n".join(made) + "\n")
            written += len(made)
            if written >= rows:
                break


def _memory(spec: DatasetSpec, settings: Settings) -> dict[str, float]:
    """Of this process and of the workers, at most, while the rows are prepared: what is their own (USS)."""
    before = psutil.Process().memory_full_info().uss
    peaks = {"driver": 0, "workers": 0}
    done = threading.Event()

    def watch() -> None:
        me = psutil.Process()
        while not done.wait(0.5):
            peaks["driver"] = max(peaks["driver"], me.memory_full_info().uss)
            own = [each for each in me.children(recursive=True) if "ray::" in " ".join(_words(each))]
            peaks["workers"] = max(peaks["workers"], sum(map(_uss, own)))

    watcher = threading.Thread(target=watch)
    watcher.start()
    plan = _plan(spec, settings)
    recipe = plan.recipe
    assert recipe is not None
    started = time.perf_counter()
    made = plan.assemble(prepared_data.in_tasks(plan.pieces(), recipe, settings))
    seconds = time.perf_counter() - started
    done.set()
    watcher.join()
    tokens = made.tokens.nbytes
    return {
        "rows": float(len(made)),
        "seconds": seconds,
        "rows_per_second": len(made) / seconds,
        "token_gib": tokens / 2**30,
        "driver_gib_before": before / 2**30,
        "driver_gib": peaks["driver"] / 2**30,
        "workers_gib": peaks["workers"] / 2**30,
        "gib_beside_the_tokens": (peaks["driver"] + peaks["workers"] - tokens) / 2**30,
    }


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _uss(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().uss)
    except psutil.Error:
        return 0


def _plan(spec: DatasetSpec, settings: Settings) -> Preparation:
    return datasets.prepare(spec, cache_dir=settings.home, progress=False)


if __name__ == "__main__":
    typer.run(main)
