"""The methods of the paper's comparison by name: how a model is trained, and how it is refined after that.

A base is `udlm` (uniform noise, independent sources), `pairflow` (uniform noise, stored pairs) or `mdlm` (masks). One
of uniform noise can be refined: `+dcd` distils it, `+redi` trains it further on pairs that it made itself.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from pairflow.errors import SpecError
from pairflow.spec import TrainingSpec

BaseName: TypeAlias = Literal["mdlm", "udlm", "pairflow"]
RefinedName: TypeAlias = Literal["udlm+redi", "udlm+dcd", "pairflow+redi", "pairflow+dcd"]
MethodName: TypeAlias = Literal[
    "mdlm", "udlm", "udlm+redi", "udlm+dcd", "pairflow", "pairflow+redi", "pairflow+dcd"
]  # in the paper's order


@dataclass(frozen=True)
class Method:
    """One line of the paper's tables.

    Attributes:
        name: such as "udlm+dcd".
        label: for people, such as "UDLM + DCD".
        base: name of the method that trains the model.
        refinement: what is done with it then.
        process: noise that the model is trained with.
        coupling: sources that the base is trained with; the base of 'paired' needs stored pairs.
        color: of its curve, from Okabe and Ito's palette, which colour-blind readers tell apart.
        marker: of its curve; every method has another.
    """

    name: MethodName
    label: str
    base: BaseName
    refinement: Literal["dcd", "redi"] | None
    process: Literal["uniform", "absorbing"]
    coupling: Literal["paired", "independent"]
    color: str
    marker: str

    @property
    def key(self) -> str:
        """The name, as MLflow allows it in tags and metrics."""
        return self.name.replace("+", "-")

    def training(self, spec: TrainingSpec) -> TrainingSpec:
        """`spec` with this method's noise and sources; all else equal, so that models can be compared."""
        return spec.model_copy(update={"process": self.process, "coupling": self.coupling})


METHODS: dict[MethodName, Method] = {
    each.name: each
    for each in (
        Method("mdlm", "MDLM", "mdlm", None, "absorbing", "independent", "#000000", "X"),
        Method("udlm", "UDLM", "udlm", None, "uniform", "independent", "#0072B2", "o"),
        Method("udlm+redi", "UDLM + ReDi", "udlm", "redi", "uniform", "independent", "#009E73", "v"),
        Method("udlm+dcd", "UDLM + DCD", "udlm", "dcd", "uniform", "independent", "#56B4E9", "^"),
        Method("pairflow", "PairFlow", "pairflow", None, "uniform", "paired", "#D55E00", "s"),
        Method("pairflow+redi", "PairFlow + ReDi", "pairflow", "redi", "uniform", "paired", "#CC79A7", "P"),
        Method("pairflow+dcd", "PairFlow + DCD", "pairflow", "dcd", "uniform", "paired", "#E69F00", "D"),
    )
}


def find(name: str) -> Method:
    """The method of a name.

    Raises:
        SpecError: there is none.
    """
    for known in METHODS.values():
        if known.name == name:
            return known
    base, _, refinement = name.partition("+")
    if base == "mdlm" and refinement in ("dcd", "redi"):
        raise SpecError(
            f"method '{name}': {refinement} needs a model of uniform noise, and mdlm masks; use udlm+{refinement} or "
            f"pairflow+{refinement}"
        )
    raise SpecError(f"there is no method '{name}'; expected one of {', '.join(METHODS)}")


def parse(text: str) -> tuple[MethodName, ...]:
    """The methods of a list such as "udlm,pairflow,udlm+dcd", each once, in the paper's order.

    Raises:
        SpecError: one that does not exist, or none at all.
    """
    asked = [find(name).name for part in text.split(",") if (name := part.strip().lower())]
    if not asked:
        raise SpecError(f"no method is named; expected some of {', '.join(METHODS)}, separated by commas")
    return in_order(asked)


def in_order(names: Iterable[MethodName]) -> tuple[MethodName, ...]:
    """Each name once, in the paper's order."""
    wanted = set(names)
    return tuple(name for name in get_args(MethodName) if name in wanted)


def in_words(names: Sequence[MethodName]) -> str:
    """For the name of a run: which they are, or how many."""
    return " and ".join(names) if len(names) <= 2 else f"{len(names)} methods"


def bases(names: Iterable[MethodName]) -> tuple[BaseName, ...]:
    """The bases that methods start from, each once, in the paper's order."""
    wanted = {METHODS[name].base for name in names}
    return tuple(name for name in get_args(BaseName) if name in wanted)
