"""Pictures of a comparison and of samples."""

from pathlib import Path

import numpy as np

from flows.pages.figures import pictures
from flows.pages.figures.curves import comparison
from flows.recipes.methods import METHODS
from flows.results import over_seeds
from pairflow.datasets import load
from pairflow.spec import DatasetSpec

from ..scores import costs_of_all, model_scores


def test_pictures_of_every_kind_of_data(tmp_path: Path) -> None:
    models = over_seeds([model_scores(name, 3 + place) for place, name in enumerate(METHODS)])
    comparison(models, costs_of_all(), "nci", tmp_path / "comparison.png")
    for spec in (DatasetSpec(name="nci", max_rows=40), DatasetSpec(name="patches", max_rows=40)):
        train = load(spec, progress=False).part("train")
        noise = np.random.default_rng(0).integers(train.vocab_size, size=(4, train.length))
        samples = {"PairFlow": {1: noise, 4: train.tokens[:4]}}
        pictures.sample_grid(train, samples, tmp_path / f"{spec.name}.png")
    sizes = [path.stat().st_size for path in tmp_path.glob("*.png")]
    assert len(sizes) == 3
    assert min(sizes) > 10_000  # bytes: an empty canvas has fewer
