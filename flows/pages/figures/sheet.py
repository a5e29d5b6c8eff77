"""A sheet of small pictures in labelled rows, pixel for pixel: neither smoothed nor rescaled by a plot."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

CELL = 128
"""Pixels of a picture's side on a sheet, at least."""
INK, FAINT = (20, 20, 20), (120, 120, 120)
_GAP, _MARGIN, _LINE = 8, 12, 20
_FRAME = (170, 170, 170)


def font(kind: Literal["sans", "mono"], size: int) -> "FreeTypeFont":
    """A font that comes with matplotlib, so that every machine has it."""
    from matplotlib import get_data_path
    from PIL import ImageFont

    name = {"sans": "DejaVuSans.ttf", "mono": "DejaVuSansMono.ttf"}[kind]
    return ImageFont.truetype(str(Path(get_data_path()) / "fonts" / "ttf" / name), size)


def write(
    rows: Sequence[tuple[str, Sequence[np.ndarray]]], title: str, path: Path, *, columns: Sequence[str] = ()
) -> None:
    """Writes rows of pictures as one PNG; small ones are enlarged by a whole factor, each pixel a square.

    Args:
        rows: label, which may have several lines, and pictures uint8 [height, width, 3], all of one size.
        title: of the sheet.
        path: of the PNG.
        columns: a heading for each column, if any.
    """
    from PIL import Image, ImageDraw

    height, width = rows[0][1][0].shape[:2]
    scale = max(1, -(-CELL // max(height, width)))
    height, width = scale * height, scale * width
    text = font("sans", 14)
    left = _MARGIN + max((int(text.getlength(line)) for label, _ in rows for line in label.split("\n")), default=0) + 12
    top = _MARGIN + 30 + (_LINE if columns else 0)
    across = max(len(cells) for _, cells in rows)
    wide = max(left + across * (width + _GAP), 2 * _MARGIN + int(font("sans", 16).getlength(title)))
    canvas = Image.new("RGB", (wide + _MARGIN, top + len(rows) * (height + _GAP) + _MARGIN), "white")
    pen = ImageDraw.Draw(canvas)
    pen.text((_MARGIN, _MARGIN), title, fill=INK, font=font("sans", 16))
    for place, heading in enumerate(columns):
        x = left + place * (width + _GAP) + width // 2
        pen.text((x, top - 6), heading, fill=FAINT, font=text, anchor="ms")
    for line, (label, cells) in enumerate(rows):
        y = top + line * (height + _GAP)
        pen.multiline_text((left - 12, y + height // 2), label, fill=INK, font=text, anchor="rm", align="right")
        for place, cell in enumerate(cells):
            x = left + place * (width + _GAP)
            pen.rectangle((x - 1, y - 1, x + width, y + height), outline=_FRAME)
            canvas.paste(Image.fromarray(np.kron(cell, np.ones((scale, scale, 1), np.uint8))), (x, y))
    canvas.save(path)
