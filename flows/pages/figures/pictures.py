"""Pictures of a coupling, and of samples as people look at them."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flows.pages.figures import sheet
from flows.pages.verdict import in_steps
from pairflow.datasets import TokenDataset
from storage import Manifest

_BLUE, _ORANGE = "#0072B2", "#D55E00"  # of Okabe and Ito's palette, as in flows.recipes.methods
_ALL_STEPS_OF = 3  # models at most
_CELL = 160  # pixels of one sample


def coupling(manifest: Manifest, path: Path) -> None:
    """Draws how far sources lie from their targets, and which positions keep their token.

    The independent coupling of uniform sources stands beside it: its Hamming distances are binomial.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from scipy import special

    summary: dict[str, Any] = dict(manifest.summary)
    length, vocab_size = manifest.length, manifest.vocab_size
    first, counts = summary["hamming_histogram"]["first"], np.array(summary["hamming_histogram"]["counts"])
    kept = np.array(summary["keep_rate_by_position"])
    # By scipy.special: scipy.stats takes a second to load, of a job that may be over in five.
    at_most = special.bdtr(np.arange(length + 1.0), length, 1 - 1 / vocab_size)
    independent = np.diff(at_most, prepend=0)
    beside = "independent coupling" + (" of uniform sources" if manifest.spec.get("noise") else "")
    rarely, nearly_always = (int(np.searchsorted(at_most, each)) for each in (1e-3, 0.999))
    distances = np.arange(min(first, rarely), max(first + len(counts) - 1, nearly_always) + 1)
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    left.bar(np.arange(first, first + len(counts)), counts / counts.sum(), width=1, color=_ORANGE, label="these pairs")
    left.step(distances, independent[distances], where="mid", color=_BLUE, label=beside)
    left.set_xlabel("Hamming distance of source and target (tokens)")
    left.set_ylabel("fraction of pairs")
    left.set_ylim(top=1.25 * left.get_ylim()[1])  # room for the legend
    left.set_title(f"Distance: mean {summary['mean_hamming']:.1f} of {length} tokens", fontsize="medium")
    right.plot(np.arange(length), kept, color=_ORANGE, marker="." if length <= 100 else "", label="these pairs")
    right.axhline(1 / vocab_size, color=_BLUE, label=beside)
    right.set_ylim(0, 1)
    right.set_xlabel("position")
    right.set_ylabel("fraction of pairs that keep the token")
    right.set_title(f"Kept tokens: mean {summary['keep_rate']:.3f}", fontsize="medium")
    for axis in (left, right):
        axis.legend()
        axis.grid(alpha=0.3)
    figure.savefig(path, dpi=130)


def sample_grid(train: TokenDataset, samples: Mapping[str, Mapping[int, np.ndarray]], path: Path) -> None:
    """Draws samples as people look at them: a row per model and number of steps, above all a row of training data.

    Of many models only the fewest, a middle and the largest number of steps are shown.

    Args:
        train: the training part; says how its tokens are drawn.
        samples: model's label -> number of steps -> tokens [N, D].
        path: of the PNG.
    """
    columns = max(len(rows) for by_steps in samples.values() for rows in by_steps.values())
    spread = np.linspace(0, len(train) - 1, columns).astype(int)  # neighbouring rows may look alike
    rows: list[tuple[str, np.ndarray]] = [("training data", train.tokens[spread])]
    for label, by_steps in samples.items():
        shown = sorted(by_steps)
        if len(samples) > _ALL_STEPS_OF:
            shown = sorted({shown[0], shown[len(shown) // 2], shown[-1]})
        rows += [(f"{label}\n{in_steps(steps)}", by_steps[steps]) for steps in shown]
    title = f"Samples of {train.name.split('/')[0]} by number of sampling steps"
    sheet.write([(label, draw(train, tokens)) for label, tokens in rows], title, path)


def grid(cells: Sequence[np.ndarray], path: Path) -> None:
    """Writes pictures [height, width, 3] of one size as one PNG, about as wide as high; small ones are enlarged."""
    from PIL import Image

    columns = math.ceil(math.sqrt(len(cells)))
    height, width = cells[0].shape[:2]
    gap = max(1, width // 14)
    lines = math.ceil(len(cells) / columns)
    canvas = np.full((lines * (height + gap) + gap, columns * (width + gap) + gap, 3), 128, np.uint8)
    for number, cell in enumerate(cells):
        line, column = divmod(number, columns)
        top, left = gap + line * (height + gap), gap + column * (width + gap)
        canvas[top : top + height, left : left + width] = cell
    scale = max(1, _CELL // (2 * width))
    Image.fromarray(np.kron(canvas, np.ones((scale, scale, 1), np.uint8))).save(path)


def draw(train: TokenDataset, tokens: np.ndarray) -> list[np.ndarray]:
    """Each row of tokens [N, D] as an RGB picture, uint8 [height, width, 3]."""
    if train.kind == "molecules":
        return [molecule(text) for text in train.decode(tokens)]
    if train.image_shape is not None:
        return [image(row, train.image_shape, train.vocab_size) for row in tokens]
    return [_strip(row, train.vocab_size) for row in tokens]


def image(row: np.ndarray, image_shape: tuple[int, int, int], vocab_size: int) -> np.ndarray:
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


def molecule(text: str) -> np.ndarray:
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
