"""The methods of the paper's comparison by name: how a model is trained, and how it is refined after that.

A base is `udlm` (uniform noise, independent sources), `pairflow` (uniform noise, pairs in closed form), `assigned` (the
same, pairs by optimal assignment: ours, and not the paper's) or `mdlm` (masks). One of uniform noise can be refined:
`+dcd` distils it, `+redi` trains it further on pairs that it made itself.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from flows.recipes.refinements import DCD, REDI, Refinement
from pairflow.errors import SpecError
from pairflow.names import NameOf
from pairflow.presets import Preset
from pairflow.spec import CouplingSpec, TrainingSpec


@dataclass(frozen=True)
class Method:
    """One line of the paper's tables.

    Attributes:
        name: such as "udlm+dcd".
        label: for people, such as "UDLM + DCD".
        base: name of the method that trains the model.
        refinement: what is done with it then.
        process: noise that the model is trained with.
        pairs: the group of a preset by which the base's pairs are made; None: its sources are independent.
        color: of its curve, from Okabe and Ito's palette and Tol's, which colour-blind readers tell apart.
        marker: of its curve; every method has another.
    """

    name: str
    label: str
    base: str
    refinement: Refinement | None
    process: Literal["uniform", "absorbing"]
    pairs: str | None
    color: str
    marker: str

    @property
    def key(self) -> str:
        """The name, as MLflow allows it in tags and metrics."""
        return self.name.replace("+", "-")

    @property
    def coupling(self) -> Literal["paired", "independent"]:
        """Sources that the base is trained with."""
        return "independent" if self.pairs is None else "paired"

    def training(self, preset: Preset) -> TrainingSpec:
        """The preset's with this method's noise and sources; all else equal, so that models can be compared.

        Pairs whose sources are of the data's marginals are trained with that noise.
        """
        of_pairs = "uniform" if self.pairs is None else coupling_of(preset, self.pairs).noise
        process = self.process if of_pairs == "uniform" else of_pairs
        return preset.training.model_copy(update={"process": process, "coupling": self.coupling})

    def may_have_trained(self, training: TrainingSpec) -> bool:
        """Whether a base's model may be this method's, by how it was trained."""
        process = "uniform" if training.process == "marginal" and self.pairs == "assignment" else training.process
        return (self.process, self.coupling) == (process, training.coupling)

    def refined_on(self, preset: Preset) -> str | None:
        """The group by which the stored pairs are made that its refinement trains on; None if it takes none."""
        if self.refinement is None or not self.refinement.takes_stored_pairs(preset):
            return None
        return self.pairs or DEFAULT_PAIRS


DEFAULT_PAIRS = "coupling"
"""The group of a preset by which pairs are made where a method has none of its own: PairFlow's."""

METHODS: dict[str, Method] = {}
"""Every method by its name, in the paper's order."""


def register(method: Method) -> None:
    """Adds a method to those that flows, forms, tables and the command line know."""
    METHODS[method.name] = method


for _method in (
    Method("mdlm", "MDLM", "mdlm", None, "absorbing", None, "#000000", "X"),
    Method("udlm", "UDLM", "udlm", None, "uniform", None, "#0072B2", "o"),
    Method("udlm+redi", "UDLM + ReDi", "udlm", REDI, "uniform", None, "#009E73", "v"),
    Method("udlm+dcd", "UDLM + DCD", "udlm", DCD, "uniform", None, "#56B4E9", "^"),
    Method("pairflow", "PairFlow", "pairflow", None, "uniform", DEFAULT_PAIRS, "#D55E00", "s"),
    Method("pairflow+redi", "PairFlow + ReDi", "pairflow", REDI, "uniform", DEFAULT_PAIRS, "#CC79A7", "P"),
    Method("pairflow+dcd", "PairFlow + DCD", "pairflow", DCD, "uniform", DEFAULT_PAIRS, "#E69F00", "D"),
    Method("assigned", "Assigned", "assigned", None, "uniform", "assignment", "#882255", "*"),
    Method("assigned+redi", "Assigned + ReDi", "assigned", REDI, "uniform", "assignment", "#666666", "p"),
    Method("assigned+dcd", "Assigned + DCD", "assigned", DCD, "uniform", "assignment", "#999933", "h"),
):
    register(_method)


def check_noise(names: Iterable[str], preset: Preset) -> None:
    """Raises SpecError for a method that refines models of uniform noise where the preset makes them of another."""
    for method in (METHODS[name] for name in names):
        if method.refinement is not None and method.training(preset).process == "marginal":
            raise SpecError(
                f"method '{method.name}': {method.refinement.label} needs a model of uniform noise, got "
                f"{method.pairs}.noise=marginal; leave that out, or name '{method.base}' alone"
            )


def base_names() -> tuple[str, ...]:
    """Methods that train a model from nothing."""
    return tuple(name for name, each in METHODS.items() if each.refinement is None)


def refined_names() -> tuple[str, ...]:
    """Methods that make something of another's model."""
    return tuple(name for name, each in METHODS.items() if each.refinement is not None)


MethodName = Annotated[str, NameOf(lambda: METHODS)]
BaseName = Annotated[str, NameOf(base_names)]
RefinedName = Annotated[str, NameOf(refined_names)]


def find(name: str) -> Method:
    """The method of a name.

    Raises:
        SpecError: there is none.
    """
    if (known := METHODS.get(name)) is not None:
        return known
    base, _, refinement = name.partition("+")
    others = [each for each in refined_names() if each.partition("+")[2] == refinement]
    if base in METHODS and others:
        raise SpecError(
            f"method '{name}': {refinement} needs a model of uniform noise, and {base} masks; use {' or '.join(others)}"
        )
    raise SpecError(f"there is no method '{name}'; expected one of {', '.join(METHODS)}")


def parse(text: str) -> tuple[str, ...]:
    """The methods of a list such as "udlm,pairflow,udlm+dcd", each once, in the paper's order.

    Raises:
        SpecError: one that does not exist, or none at all.
    """
    asked = [find(name).name for part in text.split(",") if (name := part.strip().lower())]
    if not asked:
        raise SpecError(f"no method is named; expected some of {', '.join(METHODS)}, separated by commas")
    return in_order(asked)


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Each name once, in the paper's order."""
    wanted = set(names)
    return tuple(name for name in METHODS if name in wanted)


def in_words(names: Sequence[str]) -> str:
    """For the name of a run: which they are, or how many."""
    return " and ".join(names) if len(names) <= 2 else f"{len(names)} methods"


def bases(names: Iterable[str]) -> tuple[str, ...]:
    """The bases that methods start from, each once, in the paper's order."""
    return in_order(METHODS[name].base for name in names)


def pair_groups(names: Iterable[str], preset: Preset) -> tuple[str, ...]:
    """The groups of a preset by which the pairs are made that these methods and their bases are trained on."""
    wanted = {group for name in names for group in (METHODS[name].pairs, METHODS[name].refined_on(preset)) if group}
    return tuple(group for group in type(preset).model_fields if group in wanted)


def coupling_of(preset: Preset, group: str) -> CouplingSpec:
    """How the pairs of a group are made."""
    spec: CouplingSpec = getattr(preset, group)
    return spec
