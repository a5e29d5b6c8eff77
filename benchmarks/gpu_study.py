"""The comparison of methods on one GPU and without servers: many trainings at once, their samples scored elsewhere.

    python benchmarks/gpu_study.py prepare FOLDER         writes the data of all studies, as arrays
    python benchmarks/gpu_study.py train FOLDER --out OUT --scratch SCRATCH
                                                          trains and samples, for at most --seconds; goes on if told

The second runs on a bare machine that has a GPU (numpy, numba, torch, safetensors and pydantic; scipy for weighed
matches). Which models there are says `gpu_study_plan.py`, what they are trained on `gpu_study_data.py`; what is left in
OUT is measured by `gpu_study_scores.py`.
"""

import argparse
import json
import multiprocessing
import os
import re
import time
import traceback
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from gpu_study_data import Data, group_of, make_pairs, pairs_name, pairs_path, prepare
from gpu_study_plan import ENDS, LANES, STUDIES, Entry, Study, changed
from study_variants import VARIANTS

from flows.recipes.methods import METHODS
from pairflow import training
from pairflow.checkpoint import LoadedModel, load_model
from pairflow.checkpoint_files import latest
from pairflow.distillation.redi import draw_pairs
from pairflow.exported import export
from pairflow.objectives import Denoising
from pairflow.presets import Preset
from pairflow.sampling import sample
from pairflow.spec import Spec


def _turn(job: "Job") -> int:
    """Bases before what starts from them; what is tried alone comes last."""
    if job.entry.variant:
        return 4 if job.entry.variant.startswith("steps") else 5
    if METHODS[job.entry.method].refinement is not None:
        return 2
    return 3 if job.study == "qm9_laptop" else 1


class _EnoughError(Exception):
    """The time is over, or the base failed."""


@dataclass(frozen=True)
class Job:
    """A model to train, and where."""

    study: str
    entry: Entry
    folder: Path
    scratch: Path
    out: Path
    until: float


def work(job: Job) -> str:
    """Trains one model and draws from it; says how it went."""
    if time.time() > job.until:
        return ""
    torch.set_num_threads(1)
    torch._dynamo.reset()
    where = f"{job.study}/{job.entry.name}"
    if (job.out / where / "facts.json").exists():
        return ""
    try:
        return f"{where}: {_train(job)}"
    except _EnoughError:
        return f"{where}: not finished"
    except Exception:
        return f"{where}: {traceback.format_exc()[-1500:]}"


def _train(job: Job) -> str:
    study, entry = STUDIES[job.study], job.entry
    data = Data.read(job.folder, study.dataset)
    method = METHODS[entry.method]
    scratch = job.scratch / job.study
    checkpoints = scratch / entry.name
    settings = _seeded(study.settings, entry)
    base = None if method.refinement is None else _latest(scratch / entry.base.name, job.until)
    common: dict[str, Any] = {
        "vocab_size": data.vocab_size,
        "image_shape": data.image_shape,
        "checkpoint_dir": checkpoints,
        "validation": data.test,
        "progress": False,
    }
    curve: list[dict[str, float | None]] = []
    started = time.perf_counter()
    source, target = None, data.train
    pairing = 0.0
    if method.refinement is None or base is None:
        spec: Spec = method.training(settings)
        if entry.marginal:  # also of sources that no pairs have
            spec = spec.model_copy(update={"process": "marginal"})
        if method.pairs is not None:
            source, target = _stored(job, data)
        kind = VARIANTS.get(entry.variant, Denoising)
        with mock.patch.object(training, "Denoising", kind):
            fitted = training.fit(
                settings.model, spec, target, source, on_step=_watch(job, curve), **_cadence(spec), **common
            )
    else:
        loaded = load_model(base, device="cpu")
        fit = method.refinement.fit(settings, loaded, base)
        if (own := method.refinement.own_pairs(settings)) is not None:
            drawn = draw_pairs(loaded, own, batch_size=1024, progress=False)
            source, target = drawn.source, drawn.target
            pairing = time.perf_counter() - started
        elif entry.paired:
            source, target = _stored(job, data)
        spec = method.refinement.training(settings)
        fitted = fit(target=target, source=source, on_step=_watch(job, curve), **_cadence(spec), **common)
    seconds = time.perf_counter() - started
    model = load_model(fitted.checkpoint)
    out = job.out / job.study / entry.name
    out.mkdir(parents=True, exist_ok=True)
    drawing = draw(model, study, out)
    facts = {
        "method": entry.method,
        "objective": entry.objective,
        "variant": entry.variant,
        "seed": entry.seed,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "num_steps": fitted.steps,
        "num_parameters": sum(weight.numel() for weight in model.model.parameters()),
        "loss": fitted.loss,
        "validation_nll": fitted.validation_nll,
        "training_seconds": fitted.seconds,
        "own_pairs_seconds": pairing,
        "seconds_with_start": seconds,
        "sampling_seconds": drawing,
        "curve": curve[:: max(1, len(curve) // 50)],
        "passes": fitted.steps * spec.batch_size / len(data.train),
    }
    if entry.kept:
        export(fitted.checkpoint, out / "weights", page="")
    (out / "facts.json").write_text(json.dumps(facts))
    speed = (curve[-1]["tokens_per_second"] or 0) / spec.batch_size / model.length if curve else 0
    return (
        f"{fitted.seconds:.1f} s of {seconds:.1f}, {speed:.0f} steps/s at its end, sampling {drawing:.1f} s, "
        f"nll {fitted.validation_nll}, mfu {curve[-1]['mfu']}"
    )


def _stored(job: Job, data: Data) -> tuple[np.ndarray, np.ndarray]:
    """Sources and targets of the pairs that were made for a model."""
    group = group_of(job.entry)
    assert group is not None
    source = np.load(pairs_path(job.scratch, STUDIES[job.study], pairs_name(job.entry, group)))
    return source, np.tile(data.train, (len(source) // len(data.train), 1))


def _seeded(settings: Preset, entry: Entry) -> Preset:
    groups = ("training", "distillation", "redi_training", "redi")
    seeded = changed(settings, **{name: {"seed": entry.seed} for name in groups})
    length = re.fullmatch(r"steps-(\d+)", entry.variant)
    steps = {"num_steps": int(length[1])} if length else {}
    states = {"states": "paired"} if entry.paired else {}
    return changed(seeded, training={"objective": entry.objective, **steps}, distillation=states)


def _cadence(spec: Any) -> dict[str, Any]:
    return {"checkpoint_every": spec.num_steps, "log_every": max(1, min(200, spec.num_steps // 20))}


def _watch(job: Job, curve: list[dict[str, float | None]]) -> Callable[[Any], None]:
    def on_step(metrics: Any) -> None:
        speed, used = metrics.tokens_per_second, metrics.flop_utilisation
        curve.append({"step": metrics.step, "loss": metrics.loss, "tokens_per_second": speed, "mfu": used})
        if time.time() > job.until:
            raise _EnoughError

    return on_step


def _latest(folder: Path, until: float) -> Path:
    """The base's model, which another worker may be training at this moment."""
    while time.time() < until:
        if (folder.parent / f"{folder.name}.failed").exists():
            raise _EnoughError
        if (folder.parent / f"{folder.name}.done").exists():
            found = latest(folder)
            if found is not None:
                return found
        time.sleep(1)
    raise _EnoughError


def draw(model: LoadedModel, study: Study, out: Path) -> float:
    """Samples by both ends; returns seconds."""
    started = time.perf_counter()
    masked = model.process.name == "absorbing"
    for end, spec in ENDS.items():
        if masked and end == "argmax":
            continue
        drawn = {}
        for calls in study.calls:
            num_steps = calls - (spec.final_step == "greedy")
            if num_steps < 1:
                continue
            samples = sample(
                model.model,
                model.process,
                spec,
                num_samples=study.num_samples,
                num_steps=num_steps,
                length=model.length,
                batch_size=1024,
                progress=False,
            )
            drawn[str(calls)] = samples.tokens
        _save(out / f"{end}.z", drawn)
    return time.perf_counter() - started


def _save(path: Path, drawn: Mapping[str, np.ndarray]) -> None:
    """Small, as what comes back from the machine is limited."""
    head = json.dumps({"shape": next(iter(drawn.values())).shape, "calls": list(drawn)}).encode()
    body = np.stack(list(drawn.values()))
    binary = body.max() == 1
    packed = np.packbits(body) if binary else body
    path.write_bytes(head + b"\n" + zlib.compress(packed.tobytes(), 9))


def train(folder: Path, out: Path, scratch: Path, lanes: tuple[str, ...], workers: int, seconds: float) -> None:
    """Trains the models of some lanes, in their order, until the time is over."""
    until = time.time() + seconds
    names = tuple(name for lane in lanes for name in LANES.get(lane, (lane,)))
    make_pairs(folder, scratch, names)
    jobs = [Job(name, entry, folder, scratch, out, until) for name in names for entry in STUDIES[name].entries]
    jobs.sort(key=_turn)
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "TORCHINDUCTOR_COMPILE_THREADS"), "1")
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        for said in pool.imap_unordered(_noted, jobs):
            if said:
                print(f"{until - time.time():6.0f} s left  {said}", flush=True)


def _noted(job: Job) -> str:
    said = work(job)
    done = (job.out / job.study / job.entry.name / "facts.json").exists()
    (job.scratch / job.study).mkdir(parents=True, exist_ok=True)
    (job.scratch / job.study / f"{job.entry.name}.{'done' if done else 'failed'}").touch()
    return said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    steps = parser.add_subparsers(dest="step", required=True)
    steps.add_parser("prepare").add_argument("folder", type=Path)
    training_ = steps.add_parser("train")
    training_.add_argument("folder", type=Path)
    training_.add_argument("--out", type=Path, required=True)
    training_.add_argument("--scratch", type=Path, required=True, help="pairs and checkpoints")
    training_.add_argument("--lanes", default="light,long", help="lanes of the plan, or studies")
    training_.add_argument("--workers", type=int, default=1)
    training_.add_argument("--seconds", type=float, default=1e9)
    options = parser.parse_args()
    if options.step == "prepare":
        prepare(options.folder)
    else:
        lanes = tuple(options.lanes.split(","))
        train(options.folder, options.out, options.scratch, lanes, options.workers, options.seconds)


if __name__ == "__main__":
    main()
