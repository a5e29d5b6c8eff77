"""The pictures of a coupling and of an evaluation: what pairs look like, curves by sampling steps, real samples."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flows.results import NUM_SAMPLES, ModelScores
from pairflow.datasets import TokenDataset
from storage import Manifest

# Okabe and Ito's palette, which colour-blind readers tell apart; markers differ as well.
_STYLES = (("#0072B2", "o"), ("#D55E00", "s"), ("#009E73", "^"), ("#CC79A7", "D"))
_CELL = 160  # pixels of one sample


def coupling(manifest: Manifest, path: Path) -> None:
    """Draws how far sources lie from their targets, and which positions keep their token.

    The independent coupling, whose sources are uniform, stands beside it: its Hamming distances are binomial.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from scipy import stats

    summary: dict[str, Any] = dict(manifest.summary)
    length, vocab_size = manifest.length, manifest.vocab_size
    first, counts = summary["hamming_histogram"]["first"], np.array(summary["hamming_histogram"]["counts"])
    kept = np.array(summary["keep_rate_by_position"])
    independent = stats.binom(length, 1 - 1 / vocab_size)
    low, high = min(first, int(independent.ppf(1e-3))), max(first + len(counts) - 1, int(independent.ppf(0.999)))
    distances = np.arange(low, high + 1)
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    (blue, _), (orange, _) = _STYLES[:2]
    left.bar(np.arange(first, first + len(counts)), counts / counts.sum(), width=1, color=orange, label="these pairs")
    left.step(distances, independent.pmf(distances), where="mid", color=blue, label="independent coupling")
    left.set_xlabel("Hamming distance of source and target (tokens)")
    left.set_ylabel("fraction of pairs")
    left.set_ylim(top=1.25 * left.get_ylim()[1])  # room for the legend
    left.set_title(f"Distance: mean {summary['mean_hamming']:.1f} of {length} tokens", fontsize="medium")
    right.plot(np.arange(length), kept, color=orange, marker="." if length <= 100 else "", label="these pairs")
    right.axhline(1 / vocab_size, color=blue, label="independent coupling")
    right.set_ylim(0, 1)
    right.set_xlabel("position")
    right.set_ylabel("fraction of pairs that keep the token")
    right.set_title(f"Kept tokens: mean {summary['keep_rate']:.3f}", fontsize="medium")
    for axis in (left, right):
        axis.legend()
        axis.grid(alpha=0.3)
    figure.savefig(path, dpi=130)


def comparison(models: Sequence[ModelScores], title: str, path: Path) -> None:
    """Draws every score of every model against the number of sampling steps; the headline comes first, large.

    Error bars are one standard deviation over the trials; without several trials there are none.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, NullLocator, ScalarFormatter

    headline = models[0].headline
    others = [name for name in models[0].steps[0].scores if name not in (headline.name, NUM_SAMPLES)]
    figure = Figure(figsize=(6.4 + 4.2 * len(others), 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 1 + len(others), squeeze=False, width_ratios=[1.5] + [1] * len(others))[0]
    steps = sorted({each.num_steps for model in models for each in model.steps})
    for axis, name in zip(axes, [headline.name, *others], strict=True):
        for model, (color, marker) in zip(models, _STYLES, strict=False):
            axis.errorbar(
                [each.num_steps for each in model.steps],
                [each.scores[name].mean for each in model.steps],
                yerr=[each.scores[name].std for each in model.steps],
                label=model.label,
                color=color,
                marker=marker,
                capsize=3,
            )
        if (held_out := models[0].facts.get(f"held_out_{name}")) is not None:
            axis.axhline(held_out, color="0.4", linestyle=":", label="held-out data")
        axis.set_xscale("log", base=2)
        axis.xaxis.set_major_locator(FixedLocator(steps))
        axis.xaxis.set_minor_locator(NullLocator())
        axis.xaxis.set_major_formatter(ScalarFormatter())
        axis.set_xlabel("sampling steps")
        axis.grid(alpha=0.3)
        axis.set_ylim(bottom=0)
        axis.set_title(name.replace("_", " "), fontsize="medium")
    better = "higher is better" if headline.higher_is_better else "lower is better"
    axes[0].set_ylabel(f"{models[0].headline_text} ({better})")
    axes[0].set_title(f"{title}: {headline.label} by number of sampling steps", fontsize="medium")
    axes[0].legend()
    figure.savefig(path, dpi=130)


def sample_grid(train: TokenDataset, samples: Mapping[str, Mapping[int, np.ndarray]], path: Path) -> None:
    """Draws samples as people look at them: a row per model and number of steps, above all a row of training data.

    Args:
        train: the training part; says how its tokens are drawn.
        samples: model's label -> number of steps -> tokens [N, D].
        path: of the PNG.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = max(len(rows) for by_steps in samples.values() for rows in by_steps.values())
    spread = np.linspace(0, len(train) - 1, columns).astype(int)  # neighbouring rows may look alike
    rows: list[tuple[str, np.ndarray]] = [("training data", train.tokens[spread])]
    for label, by_steps in samples.items():
        rows += [(f"{label}\n{steps} step{'s' if steps > 1 else ''}", by_steps[steps]) for steps in sorted(by_steps)]
    figure = Figure(figsize=(1.9 + columns, len(rows) * 1.0 + 0.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for line, (label, tokens) in zip(axes, rows, strict=True):
        cells = draw(train, tokens)
        for column, axis in enumerate(line):
            axis.set_xticks([])
            axis.set_yticks([])
            if column < len(cells):
                axis.imshow(cells[column], interpolation="nearest", aspect="equal")
            else:
                axis.axis("off")
        line[0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize="small")
    figure.suptitle(f"Samples of {train.name.split('/')[0]} by number of sampling steps", fontsize="medium")
    figure.savefig(path, dpi=130)


def draw(train: TokenDataset, tokens: np.ndarray) -> list[np.ndarray]:
    """Each row of tokens [N, D] as an RGB picture, uint8 [height, width, 3]."""
    if train.kind == "molecules":
        return [_molecule(text) for text in train.decode(tokens)]
    if train.image_shape is not None:
        return [_image(row, train.image_shape, train.vocab_size) for row in tokens]
    return [_strip(row, train.vocab_size) for row in tokens]


def _image(row: np.ndarray, image_shape: tuple[int, int, int], vocab_size: int) -> np.ndarray:
    """Token k of K as the intensity k/(K−1); one channel becomes grey."""
    intensity = np.round(row.reshape(image_shape).astype(np.float64) * (255 / (vocab_size - 1))).astype(np.uint8)
    picture = np.moveaxis(intensity, 0, -1)
    return np.repeat(picture, 3, axis=-1) if picture.shape[-1] == 1 else picture


def _strip(row: np.ndarray, vocab_size: int) -> np.ndarray:
    """Tokens without a picture of their own, as coloured cells in reading order."""
    import matplotlib

    width = math.ceil(math.sqrt(len(row)))
    padded = np.full(width * width, np.nan)
    padded[: len(row)] = row / (vocab_size - 1)
    colors = matplotlib.colormaps["viridis"](padded.reshape(width, width))
    return (colors[..., :3] * 255).astype(np.uint8)


def _molecule(text: str) -> np.ndarray:
    """A molecule drawn by RDKit, or the text itself, marked, where it is none."""
    from PIL import Image, ImageDraw, ImageFont
    from rdkit import Chem, rdBase
    from rdkit.Chem.Draw import MolToImage

    with rdBase.BlockLogs():
        molecule = Chem.MolFromSmiles(text) if text else None
    if molecule is not None and molecule.GetNumAtoms():
        return np.asarray(MolToImage(molecule, size=(_CELL, _CELL)).convert("RGB"))
    canvas = Image.new("RGB", (_CELL, _CELL), (236, 236, 236))
    lines = ["not a molecule:", *(textwrap.wrap(text, 18, max_lines=6) or ["(empty)"])]
    font = ImageFont.load_default(size=14)
    ImageDraw.Draw(canvas).multiline_text((8, 8), "\n".join(lines), fill=(170, 60, 0), font=font)
    return np.asarray(canvas)
