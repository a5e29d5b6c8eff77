"""The figure of an evaluation: every score by number of sampling steps, and what each method cost."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from flows.pages.tables import score_names
from flows.pages.verdict import in_steps
from flows.recipes.methods import METHODS
from flows.results import MethodCost, MethodScores
from pairflow.metrics.labels import label

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Of a method's whole cost, from the bottom of its bar: name of the part, how dark it is drawn, and its hatching.
_PARTS = (("pairing", 1.0, ""), ("training", 0.55, ""), ("refinement", 0.55, "///"))
_HELD_OUT = "held-out data"
_COLUMNS = 4  # of small panels, at most
_LINES = (
    "-",
    (0, (1, 1)),
    (0, (5, 1, 1, 1)),
    (0, (3, 1, 1, 1, 1, 1)),
)  # of the models of one method, one after another


@dataclass(frozen=True)
class Curve:
    """How one model's curve is drawn: its method's colour and marker; models of one method differ in line and filling.

    Attributes:
        color: of line and marker.
        marker: its shape.
        linestyle: as matplotlib has them.
        filled: whether the marker is.
    """

    color: str
    marker: str
    linestyle: str | tuple[int, tuple[int, ...]]
    filled: bool


def curve_styles(methods: Sequence[MethodScores]) -> list[Curve]:
    """The curve of each, in order."""
    styles, seen = [], dict.fromkeys(METHODS, 0)
    for each in methods:
        method, place = METHODS[each.method], seen[each.method]
        seen[each.method] += 1
        first = "-" if method.refinement is None else "--"
        linestyle = first if place == 0 else _LINES[1 + (place - 1) % (len(_LINES) - 1)]
        styles.append(Curve(method.color, method.marker, linestyle, filled=place == 0))
    return styles


def place_of(num_steps: int) -> float:
    """Where a number of steps stands on an axis of logarithms: none at all, which is one network call, left of 1."""
    return num_steps or 0.5


def tick(num_steps: int) -> str:
    """What stands under it."""
    return str(num_steps) if num_steps else in_steps(0)


def comparison(methods: Sequence[MethodScores], costs: Sequence[MethodCost], title: str, path: Path) -> None:
    """Draws every score of every method against the number of sampling steps, and the methods' wall seconds.

    The headline comes first, large, beside the costs; the other scores are small panels below. Error bars are one
    standard deviation, over the training seeds if there are several, else over the trials; without several of either
    there are none. A score that is absent has no point.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    headline, *others = score_names(methods)
    columns = min(_COLUMNS, max(1, len(others)))
    rows = -(-len(others) // columns)
    figure = Figure(figsize=(14, 5 + 2.75 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    halves = figure.add_gridspec(1 + bool(rows), 1, height_ratios=[1.75, rows][: 1 + bool(rows)])
    upper = halves[0].subgridspec(1, 2 if costs else 1, width_ratios=[5, 3] if costs else None)
    large = figure.add_subplot(upper[0])
    _curves(large, methods, headline)
    shown = methods[0].headline
    better = "higher is better" if shown.higher_is_better else "lower is better"
    large.set_ylabel(f"{methods[0].headline_text} ({better})")
    large.set_title(f"{title}: {shown.label} by number of sampling steps", fontsize="large")
    if costs:
        _bars(figure.add_subplot(upper[1]), costs)
    if others:
        panels = halves[1].subgridspec(rows, columns)
        for place, name in enumerate(others):
            _curves(figure.add_subplot(panels[place]), methods, name, small=True)
    # The held-out line is in some panels only, and comes first by itself.
    drawn = {
        text: handle
        for axis in figure.axes[::-1]
        for handle, text in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    order = [*(each.label for each in methods), *([_HELD_OUT] if _HELD_OUT in drawn else [])]
    figure.legend(
        [drawn[text] for text in order],
        order,
        loc="outside lower center",
        ncols=min(4, len(order)),
        frameon=False,
        handlelength=3.2,  # long enough to tell the lines apart
    )
    figure.savefig(path, dpi=110)


def _curves(axis: "Axes", methods: Sequence[MethodScores], name: str, *, small: bool = False) -> None:
    """One score of all methods against the number of steps."""
    from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

    for method, style in zip(methods, curve_styles(methods), strict=True):
        had = [each for each in method.steps if name in each.scores]
        axis.errorbar(
            [place_of(each.num_steps) for each in had],
            [each.scores[name].mean for each in had],
            yerr=[each.scores[name].std for each in had],
            label=method.label,
            color=style.color,
            marker=style.marker,
            markerfacecolor=style.color if style.filled else "white",
            markeredgecolor="white" if style.filled else style.color,
            markeredgewidth=0.6 if style.filled else 1.2,
            markersize=5.5 if small else 8,
            linestyle=style.linestyle,
            linewidth=1.2 if small else 1.6,
            capsize=2 if small else 3,
        )
    held_out = methods[0].facts.get(f"held_out_{name}")
    if held_out is not None:
        axis.axhline(held_out, color="0.4", linestyle=":", label=_HELD_OUT)
    axis.set_xscale("log", base=2)
    steps = sorted({each.num_steps for method in methods for each in method.steps})
    places = [place_of(each) for each in steps]
    axis.set_xlim(places[0] / 1.2, places[-1] * 1.2)  # also where only some have the score
    axis.xaxis.set_major_locator(FixedLocator(places))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(FixedFormatter([tick(each) for each in steps]))
    axis.grid(alpha=0.3)
    axis.set_ylim(0, 1.04 * axis.get_ylim()[1])
    if not small:
        axis.set_xlabel("sampling steps")
        return
    how = label(name)
    axis.set_xlabel("sampling steps", fontsize="small")
    axis.set_ylabel(how.unit, fontsize="small")
    axis.tick_params(labelsize="small")
    arrow = {True: " ↑", False: " ↓", None: ""}[how.higher_is_better]
    axis.set_title(how.text + arrow, fontsize="medium")


def _bars(axis: "Axes", costs: Sequence[MethodCost]) -> None:
    """Wall seconds of every method: its base's training and pairs, and what refines it, one upon the other."""
    from matplotlib.patches import Patch

    places = range(len(costs))
    ends = [0.0] * len(costs)
    for part, strength, hatch in _PARTS:
        seconds = [getattr(each, part).mean for each in costs]
        colors = [METHODS[each.method].color for each in costs]
        bars = axis.barh(places, seconds, left=ends, color=colors, height=0.7, hatch=hatch, edgecolor="white")
        for bar in bars:
            bar.set_alpha(strength)
        ends = [end + more for end, more in zip(ends, seconds, strict=True)]
    for place, end in zip(places, ends, strict=True):
        axis.annotate(
            f"{end:,.3g}" if end < 1000 else f"{end:,.0f}",
            (end, place),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
        )
    axis.set_yticks(list(places), [METHODS[each.method].label for each in costs])
    axis.set_ylim(max(len(costs), 3) - 0.4, -0.6)  # top down; a few bars stay slim
    axis.set_xlim(0, 1.2 * max([*ends, 1e-3]))  # room for the numbers
    axis.set_xlabel("wall seconds on this machine")
    axis.set_title("what each took", fontsize="large")
    axis.grid(axis="x", alpha=0.3)
    shown = [Patch(facecolor="0.3", alpha=alpha, hatch=hatch, edgecolor="white") for _, alpha, hatch in _PARTS]
    names = [part for part, _, _ in _PARTS]
    axis.legend(shown, names, fontsize="small", ncols=3, loc="lower right", frameon=False)
