"""A refinement, a coupling kind and their methods that the product does not have: what adding one takes."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

import storage
from flows.jobs.shards import ShardStatistics
from flows.jobs.sources import SOURCES, Resources, RowByRow
from flows.recipes.methods import Method, register
from flows.recipes.refinements import Refinement
from pairflow.checkpoint import LoadedModel
from pairflow.presets import Preset
from pairflow.spec import COUPLING_KINDS
from pairflow.training import FitResult, fit
from storage import PairsHeader, ShardPlan


class Longer(Refinement):
    """Trains the model further on the data, with sources as fresh as before."""

    name = "longer"
    label = "Longer"
    settings = ("redi_training",)

    def fit(self, preset: Preset, loaded: LoadedModel, checkpoint: Path) -> Callable[..., FitResult]:
        spec = preset.redi_training.model_copy(update={"coupling": "independent"})
        return functools.partial(fit, loaded.model_spec, spec, initial=checkpoint)


class Reversed(RowByRow):
    """The source of a row is the row, backwards, and turned by the seed."""

    def make(self, url: str, header: PairsHeader, shards: Sequence[ShardPlan], resources: Resources) -> None:
        for shard in shards:
            numbers = np.arange(shard.start, shard.stop, dtype=np.int64)
            target = self.data.train.tokens[numbers]
            source = np.roll(target[:, ::-1], self.spec.seed, axis=1)
            storage.write_shard(url, header, shard.index, source, target, numbers)
            resources.on_shard(ShardStatistics.of(target, source, 0))


def add() -> None:
    """Registers them."""
    COUPLING_KINDS["reversed"] = "every row backwards."
    SOURCES["reversed"] = Reversed
    register(Method("udlm+longer", "UDLM + Longer", "udlm", Longer(), "uniform", None, "#111111", "<"))
    register(Method("mirror", "Mirror", "mirror", None, "uniform", "coupling", "#222222", ">"))
