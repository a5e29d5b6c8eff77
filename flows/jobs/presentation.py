"""Everything that an evaluation shows: its figures and its page."""

import time
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from flows.cluster.protocol import JobContext
from flows.home.kept_results import KeptFolder
from flows.home.settings import Settings
from flows.jobs.inputs import Data
from flows.jobs.scoring import Scored
from flows.pages.figures import pair_quality, pictures, trajectories
from flows.pages.figures.curves import comparison
from flows.pages.figures.trajectories import Trajectory
from flows.pages.report import Page, Picture, roles, write
from flows.recipes.methods import METHODS
from flows.results import EvaluateResult
from pairflow.presets import Preset
from pairflow.spec import Spec
from storage import Manifest

_COMPARISON = "Error bars: one standard deviation. ↑: higher is better, ↓: lower is better."
_GRID = "The same sources for every model. What no chemist would draw is marked."
_TRAJECTORIES = "The same samples as above; the first state is pure noise."
_DRAWN_FROM = ("samples.npz", "trajectory.npz")
_BY_METHOD = {"process", "coupling"}  # of a training
_COUPLING = "How far sources lie from their targets, and which positions keep their token."


def keep(scored: Scored, kept: KeptFolder) -> None:
    """Leaves what pictures of a model are drawn from beside its scores."""
    folder = kept.here
    folder.mkdir(parents=True, exist_ok=True)
    samples: dict[str, Any] = {str(steps): rows for steps, rows in scored.samples.items()}
    np.savez_compressed(folder / "samples.npz", **samples)
    scored.trajectory.save(folder / "trajectory.npz")
    kept.keep(*_DRAWN_FROM)


def present(
    result: EvaluateResult,
    folder: Path,
    data: Data,
    preset: Preset,
    settings: Settings,
    context: JobContext,
) -> None:
    """Draws the comparison, samples, trajectories and couplings, and writes the page that has them all.

    Args:
        result: names the files.
        folder: of this disk, that they are written to.
        data: that the models were measured on.
        preset: settings of the models that a method names, and of what was sampled.
        settings: where samples and pairs lie.
        context: of the job, whose Prefect run and command the page names.
    """
    folder.mkdir(parents=True, exist_ok=True)
    figure, grid, drawn, page_path = (
        folder / PurePath(each).name for each in (result.figure, result.grid, result.trajectories, result.report)
    )
    comparison(result.methods, result.costs, data.spec.name, figure)
    first = {each.label: each for each in reversed(result.models)}  # of several training seeds
    kept = {
        each.label: KeptFolder.at(settings.evaluations_dir / first[each.label].evaluation_fingerprint, settings)
        for each in result.methods
    }
    for of_model in kept.values():
        of_model.fetch(*_DRAWN_FROM)
    folders = {label: of_model.here for label, of_model in kept.items()}
    pictures.sample_grid(data.train, {label: _samples(folder) for label, folder in folders.items()}, grid)
    followed = _followed(result)
    trajectory = Trajectory.load(folders[followed] / "trajectory.npz")
    trajectories.draw(data.train, trajectory, followed, drawn)
    pairs = _pairs(result, settings)
    couplings = {manifest.fingerprint: (label, manifest) for label, manifest in pairs.items()}
    shown = [
        Picture("Scores by number of sampling steps", figure, _COMPARISON),
        Picture("Samples", grid, _GRID if data.train.kind == "molecules" else _GRID.partition(".")[0] + "."),
        Picture("From source to sample", drawn, _TRAJECTORIES),
    ]
    for label, manifest in couplings.values():
        if (path := pair_quality.picture(manifest, settings)) is not None:
            shown.append(Picture(f"The pairs that {label} was trained on", path, _COUPLING))
    page = Page(
        dataset=data.spec.name,
        data=_about(data),
        settings={group: _named(getattr(preset, group)) for group in _shown_groups(result, preset)},
        pictures=shown,
        pairs=pairs,
        links={"Prefect flow run": context.flow_run_url or context.flow_run_id},
        mlflow=settings.mlflow_pages,
        made=time.strftime("%-d %B %Y, %H:%M UTC", time.gmtime()),
        command=context.parent_command or context.command,
        preset=context.preset,
    )
    write(result, page, page_path)


def _samples(folder: Path) -> dict[int, np.ndarray]:
    """Number of steps -> the samples [N, D] that were kept of a model."""
    with np.load(folder / "samples.npz", allow_pickle=False) as archive:
        return {int(name): archive[name] for name in archive.files}


def _followed(result: EvaluateResult) -> str:
    """The model whose trajectories are shown: the candidate, or the one with the best headline at the most steps."""
    parts = roles(result.methods)
    for each in result.methods:
        if parts[each.label] == "candidate":
            return each.label
    headline = result.methods[0].headline
    sign = 1 if headline.higher_is_better else -1
    return max(result.methods, key=lambda each: sign * each.steps[-1].scores[headline.name].mean).label


def _pairs(result: EvaluateResult, settings: Settings) -> dict[str, Manifest]:
    """Label -> manifest, of models that were trained on pairs which the store still has."""
    found = {}
    for each in reversed(result.models):
        if each.pairs_fingerprint is not None:
            manifest = pair_quality.find(each.pairs_fingerprint, settings)
            if manifest is not None:
                found[each.label] = manifest
    return dict(reversed(list(found.items())))


def _about(data: Data) -> dict[str, object]:
    """Which data it is, by name."""
    report = data.whole.report
    return {
        "dataset": data.spec.name,
        "source": report.source,
        "rows": report.summary(),
        **({"notes": "; ".join(report.notes)} if report.notes else {}),
        "training part": f"{len(data.train):,} rows of {data.train.length} tokens, K = {data.train.vocab_size}",
        "training part, SHA-256": data.train.digest,
        **(
            {}
            if data.test is None
            else {"held-out part": f"{len(data.test):,} rows", "held-out part, SHA-256": data.test.digest}
        ),
    }


def _shown_groups(result: EvaluateResult, preset: Preset) -> list[str]:
    """The groups of settings that decide about what is shown; those of models by reference are not known here."""
    named = [METHODS[each.method] for each in result.methods if each.reference is None]
    wanted = {"evaluation"}
    if named:
        wanted |= {"model", "training"} | {each.pairs for each in named if each.pairs}
        for each in named:
            if each.refinement is not None:
                wanted |= set(each.refinement.settings)
    return [name for name in Preset.model_fields if name in wanted]


def _named(spec: Spec) -> Mapping[str, str]:
    """A group of settings in words, without what the methods decide."""
    chosen = spec.model_dump(exclude_none=True, exclude=_BY_METHOD)
    return {name.replace("_", " "): _text(value) for name, value in chosen.items()}


def _text(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
