"""The picture of a few samples on their way from pure noise to the result, state by state."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from flows.pages.figures import pictures, sheet
from flows.pages.verdict import in_steps
from pairflow.datasets import TokenDataset

STATES_SHOWN = 10  # at most, of a trajectory: as many as a picture has room for
_SAMPLES = 4
_TEXT_SIZE = 15  # pixels
_LINE = 22
_APART = 3  # between two tokens
_LABEL_WIDTH = 120
_CHANGED = (255, 205, 145)
_MASK_COLOR = (0.80, 0.47, 0.65)  # of Okabe and Ito's palette; no grey and none of viridis
_SPECIALS = {"<bos>": "⊢", "<eos>": "⊣", "<pad>": "·"}
_MASK = "▒"


@dataclass(frozen=True)
class Trajectory:
    """A few samples on their way from source to result.

    Attributes:
        num_steps: T.
        steps: after how many steps each state is, [S], ascending; 0 is the source, T + 1 what a greedy end makes of T.
        tokens: [S, N, D] int32; tokens of the absorbing process are K where they are masked.
    """

    num_steps: int
    steps: np.ndarray
    tokens: np.ndarray

    @classmethod
    def of(cls, num_steps: int, states: Sequence[np.ndarray]) -> Self:
        """All states of a path, or a few of many, evenly chosen; the first and the last are always there."""
        chosen = np.unique(np.linspace(0, len(states) - 1, min(len(states), STATES_SHOWN)).round().astype(int))
        return cls(num_steps, chosen, np.stack([states[each] for each in chosen]))

    @classmethod
    def load(cls, path: Path) -> Self:
        """What `save` wrote."""
        with np.load(path, allow_pickle=False) as archive:
            return cls(int(archive["num_steps"]), archive["steps"], archive["tokens"])

    def save(self, path: Path) -> None:
        """Writes an .npz."""
        np.savez_compressed(path, num_steps=self.num_steps, steps=self.steps, tokens=self.tokens)


def draw(train: TokenDataset, trajectory: Trajectory, label: str, path: Path) -> None:
    """Draws trajectories as people look at their data: pictures, strings with what changed marked, or strips.

    Args:
        train: the training part; says how its tokens are drawn.
        trajectory: of which the first samples are shown.
        label: the model's.
        path: of the PNG.
    """
    title = f"{label}: from source to sample in {in_steps(trajectory.num_steps)}"
    tokens = trajectory.tokens[:, :_SAMPLES]
    names = [_name(int(step), trajectory.num_steps) for step in trajectory.steps]
    if train.kind == "molecules":
        _strings(train, tokens, names, f"{title}; changed tokens are marked", path)
    elif train.image_shape is not None:
        _images(train, tokens, names, title, path)
    else:
        _strips(train.vocab_size, tokens, names, title, path)


def _name(step: int, num_steps: int) -> str:
    if step == 0:
        return "source"
    return f"step {step}" if step <= num_steps else "greedy end"


def _images(train: TokenDataset, tokens: np.ndarray, names: list[str], title: str, path: Path) -> None:
    """A row a sample, a column a state."""
    rows = [
        (f"sample {sample}", [_image(train, state) for state in tokens[:, sample]]) for sample in range(tokens.shape[1])
    ]
    sheet.write(rows, title, path, columns=names)


def _image(train: TokenDataset, row: np.ndarray) -> np.ndarray:
    """One state as RGB, uint8; where a channel is masked, the pixel is purple."""
    shape, vocab_size = train.image_shape or (1, 1, len(row)), train.vocab_size
    picture = pictures.image(np.minimum(row, vocab_size - 1), shape, vocab_size)
    masked = (row == vocab_size).reshape(shape).any(axis=0)
    picture[masked] = np.round(255 * np.array(_MASK_COLOR)).astype(np.uint8)
    return picture


def _strips(vocab_size: int, tokens: np.ndarray, names: list[str], title: str, path: Path) -> None:
    """A panel a sample; in it a line a state, a column a position."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    num_states, num_samples, length = tokens.shape
    colors = matplotlib.colormaps["viridis"].with_extremes(over=_MASK_COLOR)
    scale = Normalize(0, vocab_size - 1)
    figure = Figure(figsize=(9, (0.2 * num_states + 0.35) * num_samples + 1.1), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(num_samples, 1, squeeze=False, sharex=True)[:, 0]
    for sample, axis in enumerate(axes):
        axis.imshow(tokens[:, sample], aspect="auto", interpolation="nearest", cmap=colors, norm=scale)
        axis.set_yticks(range(num_states), names, fontsize="small")
        axis.set_xticks(np.unique(np.linspace(0, length - 1, min(length, 9)).round().astype(int)))
        axis.hlines(np.arange(1, num_states) - 0.5, -0.5, length - 0.5, color="white", linewidth=1)
    axes[-1].set_xlabel("position")
    masked = bool((tokens == vocab_size).any())
    bar = figure.colorbar(
        ScalarMappable(scale, colors), ax=axes.tolist(), extend="max" if masked else "neither", fraction=0.03
    )
    bar.set_label("token (masked above)" if masked else "token")
    figure.suptitle(title, fontsize="medium")
    figure.savefig(path, dpi=130)


def _strings(train: TokenDataset, tokens: np.ndarray, names: list[str], title: str, path: Path) -> None:
    """A block a sample: a line a state, token by token, and the final molecule beside it."""
    from PIL import Image, ImageDraw

    font, heading = sheet.font("mono", _TEXT_SIZE), sheet.font("sans", _TEXT_SIZE + 1)
    num_states, num_samples, length = tokens.shape
    vocab = () if train.vocab is None else train.vocab.tokens
    texts = np.array([*(_SPECIALS.get(each, each) for each in vocab), _MASK], dtype=object)[tokens]
    finals = pictures.draw(train, np.minimum(tokens[-1], train.vocab_size - 1))
    advance = font.getlength("C")
    widths = [
        [max(len(texts[state, sample, column]) for state in range(num_states)) for column in range(length)]
        for sample in range(num_samples)
    ]
    text_width = int(advance * max(map(sum, widths)) + _APART * length)
    block = max(num_states * _LINE, finals[0].shape[0]) + 18
    size = (_LABEL_WIDTH + text_width + 24 + finals[0].shape[1] + 12, 40 + num_samples * block)
    canvas = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(canvas)
    pen.text((12, 10), title, fill=sheet.INK, font=heading)
    for sample in range(num_samples):
        top = 40 + sample * block
        for state in range(num_states):
            y = top + state * _LINE
            pen.text((12, y), names[state], fill=sheet.FAINT, font=font)
            x = float(_LABEL_WIDTH)
            for column, width in enumerate(widths[sample]):
                text = texts[state, sample, column]
                if state and tokens[state, sample, column] != tokens[state - 1, sample, column]:
                    pen.rectangle((x, y - 1, x + advance * len(text) - 1, y + _LINE - 3), fill=_CHANGED)
                quiet = text in _SPECIALS.values() or text == _MASK
                pen.text((x, y), text, fill=sheet.FAINT if quiet else sheet.INK, font=font)
                x += advance * width + _APART
        canvas.paste(Image.fromarray(finals[sample]), (_LABEL_WIDTH + text_width + 24, top))
    canvas.save(path)
