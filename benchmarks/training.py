"""fit's throughput against a bare loop of forward, backward and optimiser on the same model, machine and threads.

    python benchmarks/training.py --dataset digits --dataset qm9 --steps 60

Both take turns, `--repeats` times, and medians are compared: of the time on the wall, and of this process's own CPU
time, which a noisy neighbour disturbs much less. The bare loop reuses one noisy batch that lies ready: no data, no
noise, no clipping, no averaged weights, no checkpoints, and cross-entropy for a loss. `fit` does all of that, except
for a checkpoint before the last step; the clock stops before that one is written.

    python benchmarks/training.py --dataset digits --dataset qm9 --steps 20 --base COMMIT

compares steps and samples a second with an earlier commit's instead: the two codes in turns, each in a process.
"""

import functools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, NamedTuple

import torch
import torch.nn.functional as nnf
import typer
from machine import ROOT, checked_out, write_results
from rich.console import Console
from rich.table import Table

from pairflow import datasets, models, processes
from pairflow.batches import Batches
from pairflow.datasets import TokenDataset
from pairflow.devices import autocast, resolve_device
from pairflow.presets import Preset, preset
from pairflow.sampling import sample
from pairflow.spec import DatasetSpec, parse
from pairflow.throughput import peak_flops, training_flops
from pairflow.training import StepMetrics, fit

_WARM_UP = 5
_SAMPLES, _SAMPLING_STEPS = 512, 4


class Times(NamedTuple):
    """Seconds a step, on the wall and of the process's CPU time."""

    wall: float
    cpu: float


def _now() -> Times:
    return Times(time.perf_counter(), time.process_time())


def _per_step(started: Times, ended: Times, steps: int) -> Times:
    return Times((ended.wall - started.wall) / steps, (ended.cpu - started.cpu) / steps)


def bare_loop(part: TokenDataset, recipe: Preset, steps: int, device: torch.device) -> Times:
    """A step of forward, backward and optimiser."""
    shape = part.image_shape
    network = models.build(recipe.model, vocab_size=part.vocab_size, length=part.length, image_shape=shape).to(device)
    call = torch.compile(network) if device.type == "cuda" else network
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, weight_decay=0.0, fused=True)
    size = recipe.training.batch_size
    target, _ = Batches(part.tokens, None, batch_size=size, seed=0, device=device).batch(0)
    noise = torch.randint(part.vocab_size, target.shape, device=device)
    t = torch.linspace(0.001, 0.999, size, device=device)
    x_t = torch.where(torch.rand(target.shape, device=device) < t[:, None], target, noise)
    started = _now()
    for step in range(_WARM_UP + steps):
        if step == _WARM_UP:
            _wait(device)
            started = _now()
        with autocast(device):
            logits = call(x_t, t)
        loss = nnf.cross_entropy(logits.flatten(0, 1).float(), target.flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    _wait(device)
    return _per_step(started, _now(), steps)


def whole_fit(part: TokenDataset, recipe: Preset, steps: int, device: torch.device) -> tuple[Times, StepMetrics]:
    """A step of `fit`, from the end of its warm-up to the end of its last step, and its last metrics."""
    training = recipe.training.model_copy(update={"num_steps": _WARM_UP + steps, "coupling": "independent"})
    clock: dict[int, Times] = {}
    metrics: dict[int, StepMetrics] = {}

    def on_step(seen: StepMetrics) -> None:
        clock[seen.step], metrics[seen.step] = _now(), seen

    with tempfile.TemporaryDirectory() as folder:
        fit(
            recipe.model,
            training,
            part.tokens,
            vocab_size=part.vocab_size,
            image_shape=part.image_shape,
            checkpoint_dir=folder,
            checkpoint_every=training.num_steps,
            log_every=_WARM_UP,
            on_step=on_step,
            device=device,
            progress=False,
        )
    last = training.num_steps
    return _per_step(clock[_WARM_UP], clock[last], steps), metrics[last]


def take_turns(dataset: list[str], preset_name: str, steps: int) -> None:
    """Of this process's code, at every line of its input: steps of `fit` and samples a second, by dataset, as JSON."""
    device = torch.device("cpu")
    parts = {name: datasets.load(parse(DatasetSpec, {"name": name})).part("train") for name in dataset}
    for _ in sys.stdin:
        rates = {}
        for name, part in parts.items():
            recipe = preset(preset_name, name)  # type: ignore[arg-type]
            rates[f"{name}, steps"] = 1 / whole_fit(part, recipe, steps, device)[0].wall
            sizes = {"vocab_size": part.vocab_size, "length": part.length, "image_shape": part.image_shape}
            network = models.build(recipe.model, **sizes).requires_grad_(False)
            draw = functools.partial(sample, network, processes.build("uniform", part.vocab_size), length=part.length)
            for number in (_SAMPLES // 2, _SAMPLES):  # the first warms up
                started = time.perf_counter()
                draw(num_samples=number, num_steps=_SAMPLING_STEPS, device=device, progress=False)
                rates[f"{name}, samples"] = number / (time.perf_counter() - started)
        print(json.dumps(rates), flush=True)


def compare(base: str, options: list[str], repeats: int) -> None:
    """Both codes in turns, a process each; prints a table and writes benchmarks/results/training_base.json."""
    with tempfile.TemporaryDirectory() as folder, checked_out(base, Path(folder) / "base") as earlier:
        codes = [
            subprocess.Popen(
                [sys.executable, __file__, *options, "--turns"],
                env=os.environ | {"PYTHONPATH": str(path)},
                cwd=path,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                bufsize=1,
            )
            for path in (earlier, ROOT)
        ]
        turns = [[_answer(code) for code in codes] for _ in range(repeats)]
        for code in codes:
            code.communicate()
    results = []
    table = Table("a second", "base", "here", "here / base", "by turn")
    for name in turns[0][0]:
        before, now = ([turn[code][name] for turn in turns] for code in range(2))
        medians = statistics.median(before), statistics.median(now)
        by_turn = [round(after / earlier, 3) for earlier, after in zip(before, now, strict=True)]
        result = {"rate": name, "base_commit": base, "base": before, "here": now, "ratio": medians[1] / medians[0]}
        results.append({**result, "ratios_by_turn": by_turn, "options": options})
        table.add_row(name, *(f"{each:,.1f}" for each in medians), f"{result['ratio']:.2f}", f"{by_turn}")
    Console().print(table)
    print(write_results("training_base", results))


def _answer(code: subprocess.Popen[str]) -> dict[str, float]:
    """What a code's process says to a line."""
    assert code.stdin is not None
    assert code.stdout is not None
    code.stdin.write("\n")
    return json.loads(code.stdout.readline())


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main(
    dataset: Annotated[list[str], typer.Option(help="Repeatable: registry names.")],
    preset_name: Annotated[str, typer.Option("--preset", help="Whose model and batch size.")] = "demo",
    steps: Annotated[int, typer.Option(help="Steps that are timed a turn; a multiple of 5.")] = 60,
    repeats: Annotated[int, typer.Option(help="Turns.")] = 5,
    threads: Annotated[int, typer.Option(help="Threads of both.")] = 2,
    base: Annotated[str | None, typer.Option(help="Commit to compare with, instead of the bare loop.")] = None,
    turns: Annotated[bool, typer.Option(hidden=True)] = False,
) -> None:
    """Prints a table and writes benchmarks/results/training.json, or training_base.json with --base."""
    torch.set_num_threads(threads)
    if base is not None:
        names = [f"--dataset={name}" for name in dataset]
        return compare(base, [*names, f"--preset={preset_name}", f"--steps={steps}", f"--threads={threads}"], repeats)
    if turns:
        return take_turns(dataset, preset_name, steps)
    device = resolve_device()
    results = []
    for name in dataset:
        part = datasets.load(parse(DatasetSpec, {"name": name})).part("train")
        recipe = preset(preset_name, name)  # type: ignore[arg-type]
        bare, whole, last = [], [], None
        for _ in range(repeats):
            bare.append(bare_loop(part, recipe, steps, device))
            times, last = whole_fit(part, recipe, steps, device)
            whole.append(times)
        wall, cpu = (
            [statistics.median(times[clock] for times in turns) for turns in (bare, whole)] for clock in range(2)
        )
        network = models.build(
            recipe.model, vocab_size=part.vocab_size, length=part.length, image_shape=part.image_shape
        )
        tokens = recipe.training.batch_size * part.length
        flops = training_flops(network, part.length) * recipe.training.batch_size
        on_gpu = device.type == "cuda"
        results.append(
            {
                "dataset": name,
                "preset": preset_name,
                "device": torch.cuda.get_device_name(device) if on_gpu else "cpu",
                "parameters": models.count_parameters(network),
                "batch_size": recipe.training.batch_size,
                "length": part.length,
                "vocab_size": part.vocab_size,
                "threads": threads,
                "steps": steps,
                "repeats": repeats,
                "bare_tokens_per_second": tokens / wall[0],
                "fit_tokens_per_second": tokens / wall[1],
                "wall_ratio": wall[0] / wall[1],
                "cpu_ratio": cpu[0] / cpu[1],
                "wall_ratios_by_turn": [round(b.wall / w.wall, 3) for b, w in zip(bare, whole, strict=True)],
                "cpu_ratios_by_turn": [round(b.cpu / w.cpu, 3) for b, w in zip(bare, whole, strict=True)],
                "fit_tflops": flops / wall[1] / 1e12,
                "peak_tflops": (peak_flops(torch.cuda.get_device_name(device)) or 0) / 1e12 or None if on_gpu else None,
                "flop_utilisation": None if last is None else last.flop_utilisation,
            }
        )
    table = Table("dataset", "parameters", "batch", "bare tokens/s", "fit tokens/s", "fit/bare", "by CPU time", "MFU")
    for row in results:
        table.add_row(
            row["dataset"],
            f"{row['parameters']:,}",
            str(row["batch_size"]),
            f"{row['bare_tokens_per_second']:,.0f}",
            f"{row['fit_tokens_per_second']:,.0f}",
            f"{row['wall_ratio']:.3f}",
            f"{row['cpu_ratio']:.3f}",
            "-" if row["flop_utilisation"] is None else f"{row['flop_utilisation']:.1%}",
        )
    Console().print(table)
    print(write_results("training", results))


if __name__ == "__main__":
    typer.run(main)
