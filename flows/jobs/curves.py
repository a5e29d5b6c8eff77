"""The figure of an evaluation: quality by number of sampling steps, and what each method cost."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from flows.methods import METHODS
from flows.results import NUM_SAMPLES, MethodCost, MethodScores

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Of a method's whole cost, from the bottom of its bar: name of the part, how dark it is drawn, and its hatching.
_PARTS = (("pairing", 1.0, ""), ("training", 0.55, ""), ("refinement", 0.55, "///"))
_HELD_OUT = "held-out data"


def comparison(methods: Sequence[MethodScores], costs: Sequence[MethodCost], title: str, path: Path) -> None:
    """Draws every score of every method against the number of sampling steps, and the methods' wall seconds.

    The headline comes first, large. Error bars are one standard deviation, over the training seeds if there are
    several, else over the trials; without several of either there are none.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    headline = methods[0].headline
    others = [name for name in methods[0].steps[0].scores if name not in (headline.name, NUM_SAMPLES)]
    figure = Figure(figsize=(9.6 + 4.2 * len(others), 5.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 2 + len(others), squeeze=False, width_ratios=[1.5] + [1] * (1 + len(others)))[0]
    for axis, name in zip(axes, [headline.name, *others], strict=False):
        _curves(axis, methods, name)
    better = "higher is better" if headline.higher_is_better else "lower is better"
    axes[0].set_ylabel(f"{methods[0].headline_text} ({better})")
    axes[0].set_title(f"{title}: {headline.label} by number of sampling steps", fontsize="medium")
    _bars(axes[-1], costs)
    handles, labels = axes[0].get_legend_handles_labels()
    order = sorted(range(len(labels)), key=lambda place: labels[place] == _HELD_OUT)  # it comes first by itself
    figure.legend(
        [handles[place] for place in order],
        [labels[place] for place in order],
        loc="outside lower center",
        ncols=min(4, len(labels)),
        frameon=False,
    )
    figure.savefig(path, dpi=130)


def _curves(axis: "Axes", methods: Sequence[MethodScores], name: str) -> None:
    """One score of all methods against the number of steps."""
    from matplotlib.ticker import FixedLocator, NullLocator, ScalarFormatter

    for method in methods:
        style = METHODS[method.method]
        axis.errorbar(
            [each.num_steps for each in method.steps],
            [each.scores[name].mean for each in method.steps],
            yerr=[each.scores[name].std for each in method.steps],
            label=method.label,
            color=style.color,
            marker=style.marker,
            linestyle="-" if style.refinement is None else "--",
            capsize=3,
        )
    if (held_out := methods[0].facts.get(f"held_out_{name}")) is not None:
        axis.axhline(held_out, color="0.4", linestyle=":", label=_HELD_OUT)
    axis.set_xscale("log", base=2)
    axis.xaxis.set_major_locator(FixedLocator(sorted({each.num_steps for method in methods for each in method.steps})))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(ScalarFormatter())
    axis.set_xlabel("sampling steps")
    axis.grid(alpha=0.3)
    axis.set_ylim(bottom=0)
    axis.set_title(name.replace("_", " "), fontsize="medium")


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
    axis.invert_yaxis()
    axis.set_xlim(0, 1.15 * max([*ends, 1e-3]))  # room for the numbers
    axis.set_xlabel("wall seconds on this machine")
    axis.set_title("what each took", fontsize="medium")
    axis.grid(axis="x", alpha=0.3)
    shown = [Patch(facecolor="0.3", alpha=alpha, hatch=hatch, edgecolor="white") for _, alpha, hatch in _PARTS]
    names = [part for part, _, _ in _PARTS]
    axis.legend(shown, names, fontsize="small", ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.1), frameon=False)
