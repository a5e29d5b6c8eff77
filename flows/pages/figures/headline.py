"""The headline by number of sampling steps as a drawing within a page: it takes the page's colours, light or dark."""

import math
from collections.abc import Sequence
from html import escape

from flows.pages.figures.curves import curve_styles, place_of, tick
from flows.pages.verdict import in_steps, number
from flows.results import MethodScores

_WIDTH, _HEIGHT = 640, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 26, 22, 46
_TICKS = 4


def color(css: str) -> str:
    """A curve's colour; black is the page's ink, which is light on a dark page."""
    return "var(--ink)" if css.lower() == "#000000" else css


def draw(methods: Sequence[MethodScores]) -> str:
    """The curves as SVG, every text escaped; the best way is said by the page around it."""
    name = methods[0].headline.name
    steps = sorted({step.num_steps for method in methods for step in method.steps})
    scores = [step.scores[name] for method in methods for step in method.steps if name in step.scores]
    top = _ceiling(max((score.mean + score.std for score in scores), default=1.0))
    low, high = math.log2(place_of(steps[0])), math.log2(place_of(steps[-1]))
    floor, across = _HEIGHT - _BOTTOM, _WIDTH - _LEFT - _RIGHT

    def x(num_steps: int) -> float:
        return _LEFT + across * ((math.log2(place_of(num_steps)) - low) / (high - low) if high > low else 0.5)

    def y(value: float) -> float:
        return floor - (floor - _TOP) * min(max(value / top, 0.0), 1.0)

    parts = []
    for line in range(_TICKS + 1):
        value = top * line / _TICKS
        parts.append(
            f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>'
        )
        parts.append(f'<text x="{_LEFT - 8}" y="{y(value) + 4:.1f}" text-anchor="end">{number(value)}</text>')
    parts += [f'<text x="{x(each):.1f}" y="{floor + 20}" text-anchor="middle">{tick(each)}</text>' for each in steps]
    parts.append(f'<text x="{_LEFT + across / 2}" y="{_HEIGHT - 6}" text-anchor="middle">sampling steps</text>')
    for method, style in zip(methods, curve_styles(methods), strict=True):
        had = [(each.num_steps, each.scores[name]) for each in method.steps if name in each.scores]
        ink = color(style.color)
        dashes = "" if style.linestyle == "-" else ' stroke-dasharray="7 5"'
        points = " ".join(f"{x(at):.1f},{y(score.mean):.1f}" for at, score in had)
        parts.append(f'<polyline points="{points}" fill="none" style="stroke:{ink}" stroke-width="2.5"{dashes}/>')
        for at, score in had:
            if score.std:
                ends = f'y1="{y(score.mean - score.std):.1f}" y2="{y(score.mean + score.std):.1f}"'
                parts.append(
                    f'<line x1="{x(at):.1f}" x2="{x(at):.1f}" {ends} style="stroke:{ink}" stroke-width="1.5"/>'
                )
            filling = ink if style.filled else "var(--card)"
            said = f"{method.label}, {in_steps(at)}: {number(score.mean)}"
            parts.append(
                f'<circle cx="{x(at):.1f}" cy="{y(score.mean):.1f}" r="5" style="stroke:{ink};fill:{filling}" '
                f'stroke-width="2"><title>{escape(said)}</title></circle>'
            )
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="Scores by number of sampling steps">'
        f"{''.join(parts)}</svg>"
    )


def _ceiling(value: float) -> float:
    """The least of 1, 1.2, 1.6, 2, 2.4, 3.2, 4, 6, 8 times a power of ten that is not below."""
    if value <= 0:
        return 1.0
    unit: float = 10.0 ** math.floor(math.log10(value))
    return next(unit * each for each in (1, 1.2, 1.6, 2, 2.4, 3.2, 4, 6, 8, 10) if unit * each >= value * (1 - 1e-9))
