"""What is made of a trained model: each refinement an object, registered once.

A refinement says which settings decide about its model, which pairs it needs, and how it is fitted. Nobody else asks
which one it is: a new one is a class here, its settings in `pairflow.presets.Preset`, and its methods in `methods.py`.
"""

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pairflow.presets import Preset
from pairflow.spec import OptimizerSpec, RediSpec, Spec, TrainingSpec

if TYPE_CHECKING:
    from pairflow.checkpoint import LoadedModel
    from pairflow.training import FitResult


class Refinement(ABC):
    """One way of making a few-step model of a trained one.

    Attributes:
        name: as in `udlm+dcd`.
        label: for people, as in "UDLM + DCD".
        settings: groups of a preset that decide about its models; by the last one the model is trained.
    """

    name: ClassVar[str]
    label: ClassVar[str]
    settings: ClassVar[tuple[str, ...]]

    def specs(self, preset: Preset) -> dict[str, Spec]:
        """All that decides about a model, by group: for its lineage, and for the fingerprint of a recipe."""
        return {name: getattr(preset, name) for name in self.settings} | {self.settings[-1]: self.training(preset)}

    def training(self, preset: Preset) -> OptimizerSpec:
        """What the model is trained by."""
        spec: OptimizerSpec = getattr(preset, self.settings[-1])
        return spec

    def takes_stored_pairs(self, preset: Preset) -> bool:
        """Whether it trains on pairs of the data, as a base may."""
        return False

    def own_pairs(self, preset: Preset) -> RediSpec | None:
        """How the model makes the pairs that it is trained on; None if it makes none."""
        return None

    def made(self, state: Mapping[str, Any]) -> bool:
        """Whether a checkpoint's state says that this refinement made it."""
        return False

    @abstractmethod
    def fit(self, preset: Preset, loaded: "LoadedModel", checkpoint: Path) -> "Callable[..., FitResult]":
        """What trains the model, from one that was loaded from a checkpoint; the data follows when it is called."""


class Dcd(Refinement):
    """Discrete consistency distillation (docs/method.md §5)."""

    name = "dcd"
    label = "DCD"
    settings = ("distillation",)

    def takes_stored_pairs(self, preset: Preset) -> bool:
        return preset.distillation.states == "paired"

    def made(self, state: Mapping[str, Any]) -> bool:
        return state.get("distillation") is not None

    def fit(self, preset: Preset, loaded: "LoadedModel", checkpoint: Path) -> "Callable[..., FitResult]":
        from pairflow.distillation.dcd import distill

        return functools.partial(distill, preset.distillation, checkpoint)


class Redi(Refinement):
    """Further training on pairs that the model made itself, rectified discrete flow (docs/method.md §5)."""

    name = "redi"
    label = "ReDi"
    settings = ("redi", "redi_training")

    def training(self, preset: Preset) -> TrainingSpec:
        """By the objective of the model that it goes on from: another one's network means something else."""
        return preset.redi_training.model_copy(update={"objective": preset.training.objective})

    def own_pairs(self, preset: Preset) -> RediSpec | None:
        return preset.redi

    def fit(self, preset: Preset, loaded: "LoadedModel", checkpoint: Path) -> "Callable[..., FitResult]":
        from pairflow.training import fit

        return functools.partial(fit, loaded.model_spec, self.training(preset), initial=checkpoint)


DCD, REDI = Dcd(), Redi()
