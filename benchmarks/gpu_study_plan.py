"""The models that gpu_study.py trains, by study.

A model is one of `flows.recipes.methods`, by the preset's settings, with one objective, one seed and at most one
variant: a change that is tried alone. It is drawn from by both ends, so that a coupling is never praised for what an
objective or an end did.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from flows.recipes.methods import METHODS
from pairflow.presets import Preset, preset
from pairflow.spec import DatasetSpec, SamplingSpec

ENDS = {
    "greedy": SamplingSpec(sampler="ancestral", final_step="greedy"),
    "argmax": SamplingSpec(sampler="euler", final_step="argmax"),
}
CALLS = (1, 2, 3, 5, 9, 17, 33)


@dataclass(frozen=True)
class Entry:
    """One model.

    Attributes:
        method: a name in METHODS; a refined one starts from the base's model of the same objective and seed.
        objective: of the base's training.
        seed: of the training.
        variant: what is changed, by its name in `VARIANTS`.
        kept: whether its weights come back.
    """

    method: str
    objective: str = "elbo"
    seed: int = 0
    variant: str = ""
    kept: bool = False

    @property
    def name(self) -> str:
        return "_".join([self.method, self.objective, *([self.variant] if self.variant else []), f"s{self.seed}"])

    @property
    def marginal(self) -> bool:
        """Whether its noise, and so its sources, are of the data's marginals."""
        return self.variant.startswith("marginal")

    @property
    def weighed(self) -> bool:
        """Whether its matches count what their positions tell."""
        return self.variant == "weighed"

    @property
    def paired(self) -> bool:
        """Whether it is distilled on states of stored pairs instead of Gaussian ones."""
        return self.variant == "paired"

    @property
    def base(self) -> "Entry":
        return Entry(METHODS[self.method].base, self.objective, self.seed)


@dataclass(frozen=True)
class Study:
    """Models of one dataset, by one preset with its changes."""

    dataset: DatasetSpec
    settings: Preset
    entries: tuple[Entry, ...]
    num_samples: int = 1024
    calls: tuple[int, ...] = CALLS[:-1]


def changed(settings: Preset, **groups: Mapping[str, Any]) -> Preset:
    fields_of = {name: getattr(settings, name).model_copy(update=dict(fields)) for name, fields in groups.items()}
    return settings.model_copy(update=fields_of)


def _bases(seeds: range, objectives: tuple[str, ...] = ("elbo", "mixed", "cross_entropy")) -> Iterator[Entry]:
    for seed in seeds:
        if "elbo" in objectives:
            yield Entry("mdlm", "elbo", seed)
        for objective in objectives:
            for method in ("udlm", "pairflow", "assigned"):
                yield Entry(method, objective, seed)


def _refined(seeds: range, *methods: str, objective: str = "elbo") -> Iterator[Entry]:
    yield from (Entry(method, objective, seed) for seed in seeds for method in methods)


def _lengths(seeds: range, *num_steps: int) -> Iterator[Entry]:
    """The same with other numbers of optimiser steps: when does a coupling pay?"""
    for seed in seeds:
        for steps in num_steps:
            for method in ("udlm", "pairflow", "assigned"):
                yield Entry(method, "cross_entropy", seed, f"steps-{steps}")


def _tried(seeds: range, *variants: str) -> Iterator[Entry]:
    yield from (Entry("assigned", "cross_entropy", seed, name) for seed in seeds for name in variants)


def _rest(seeds: range, *assigned: str) -> Iterator[Entry]:
    """DCD on states of pairs beside the usual ones from every base, a source from the marginals, and other matches."""
    for seed in seeds:
        for base in ("udlm", "pairflow", "assigned"):
            yield Entry(base, "elbo", seed)
            yield Entry(f"{base}+dcd", "elbo", seed)
            yield Entry(f"{base}+dcd", "elbo", seed, "paired")
        for objective in ("cross_entropy", "elbo"):
            yield Entry("udlm", objective, seed, "marginal")
            for variant in assigned:
                yield Entry("assigned", objective, seed, variant)


_REFINED = ("udlm+dcd", "pairflow+dcd", "assigned+dcd", "udlm+redi", "pairflow+redi", "assigned+redi")
_TIMES = ("times-u", "times-noise", "share-10", "share-30", "consistent", "near-noise")
_DIGITS, _QM9 = preset("demo", "digits"), preset("laptop", "qm9")
_PART = {"num_steps": 3000, "batch_size": 128}  # 50 passes of 7,600 rows
_PART_TUNED = {"distillation": {"num_steps": 600, "update_teacher_every": 120, "batch_size": 128}}
_LONG = {"num_steps": 6000, "batch_size": 1024}  # 49 passes of QM9
# The paper's networks for a part of its steps: the averages, the warm-up and the learning rate's end are shorter, too.
_PAPER_QM9 = {"num_steps": 3000, "warmup_steps": 300, "ema_decay": 0.999}  # 24 passes
_PAPER_MNIST = {"num_steps": 2500, "warmup_steps": 250, "ema_decay": 0.999}  # 11 passes

STUDIES: dict[str, Study] = {
    "digits": Study(
        DatasetSpec(name="digits"),
        _DIGITS,
        (
            *_bases(range(5)),
            *_refined(range(5), *_REFINED),
            *_refined(range(3), "assigned+dcd", "assigned+redi", objective="cross_entropy"),
            *_lengths(range(2), 150, 500, 5000),
            *_tried(range(3), *_TIMES, "replicas-8", "replicas-32"),
            *(Entry("pairflow", "cross_entropy", seed, "replicas-8") for seed in range(3)),
        ),
    ),
    "qm9_part": Study(
        DatasetSpec(name="qm9", max_rows=8000),
        changed(_QM9, training=_PART, **_PART_TUNED),
        (
            *_bases(range(3)),
            *_refined(range(3), "udlm+dcd", "pairflow+dcd", "assigned+dcd", "udlm+redi"),
            *_lengths(range(1), 300, 1000, 10_000),
            *_tried(range(3), *_TIMES, "replicas-1", "replicas-32"),
        ),
    ),
    "qm9_laptop": Study(DatasetSpec(name="qm9"), _QM9, tuple(_bases(range(3), ("elbo", "cross_entropy"))), calls=CALLS),
    "qm9_long": Study(
        DatasetSpec(name="qm9"),
        changed(_QM9, training=_LONG),
        (
            Entry("assigned", "cross_entropy", kept=True),
            Entry("pairflow", "cross_entropy"),
            Entry("udlm", "cross_entropy"),
            *(Entry(method, "elbo") for method in ("assigned", "pairflow", "udlm")),
        ),
        num_samples=10_000,
    ),
    "shipped": Study(
        DatasetSpec(name="nci"),
        changed(preset("demo", "nci"), training={"num_steps": 3000}),
        (Entry("assigned", "cross_entropy", kept=True),),
    ),
    "shipped_digits": Study(
        DatasetSpec(name="digits"),
        _DIGITS,
        (Entry("assigned", "cross_entropy", variant="replicas-8", kept=True),),
    ),
}
STUDIES |= {
    "digits_rest": Study(
        DatasetSpec(name="digits"), _DIGITS, tuple(_rest(range(5, 8), "marginal", "marginal-replicas-8"))
    ),
    "qm9_rest": Study(
        DatasetSpec(name="qm9", max_rows=8000),
        STUDIES["qm9_part"].settings,
        tuple(_rest(range(3, 6), "marginal", "weighed")),
    ),
    "qm9_paper": Study(
        DatasetSpec(name="qm9"),
        changed(preset("paper", "qm9"), training=_PAPER_QM9),
        (
            *(Entry(method, "elbo") for method in ("pairflow", "assigned", "udlm")),
            Entry("assigned", "cross_entropy"),
        ),
    ),
    "mnist_paper": Study(
        DatasetSpec(name="mnist-binary"),
        changed(preset("paper", "mnist-binary"), training=_PAPER_MNIST, assignment={"sources_per_target": 8}),
        tuple(Entry(method, loss) for loss in ("elbo", "cross_entropy") for method in ("pairflow", "udlm", "assigned")),
    ),
}
LANES = {
    "light": ("digits", "qm9_part", "shipped", "shipped_digits", "qm9_laptop"),
    "long": ("qm9_long",),
}
