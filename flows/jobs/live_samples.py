"""What a model draws while it is trained: pictures that MLflow's page of the run steps through."""

import logging
import time
from pathlib import Path

from flows.home.kept_checkpoints import Checkpoints
from flows.home.settings import Settings
from flows.lineage.stage_run import StageRun
from flows.pages.figures import pictures
from pairflow import checkpoint
from pairflow.datasets import TokenDataset
from pairflow.errors import PairFlowError
from pairflow.sampling import sample
from pairflow.spec import SamplingSpec

_logger = logging.getLogger("pairflow.job")
_SAMPLES, _STEPS = 8, 4
_PICTURES = 5  # of a training
_KEY = "samples"


class LiveSamples:
    """A few samples of a training's checkpoints, as they come.

    Args:
        train: the training part; says how tokens are drawn.
        checkpoints: of the training, which another machine's worker may write.
        num_steps: optimiser steps of the training.
        stage: that they are shown with.
        settings: several workers leave the devices to themselves.
    """

    def __init__(
        self, train: TokenDataset, checkpoints: Checkpoints, num_steps: int, stage: StageRun, settings: Settings
    ) -> None:
        self._train, self._checkpoints, self._stage = train, checkpoints, stage
        self._folder = checkpoints.here.parent / "live_samples"
        self._device = "cpu" if settings.train_workers > 1 else "auto"
        self._every = max(1, num_steps // _PICTURES)
        self._next = self._every

    def reach(self, step: int) -> None:
        """Draws from the last checkpoint when it is time; the training's clock stands still meanwhile."""
        if step < self._next:
            return
        # The checkpoint of this very step is written after this: the one before it is shown.
        if (found := self._last()) is not None:
            self._next = (step // self._every + 1) * self._every
            self.draw(*found)

    def _last(self) -> tuple[int, Path] | None:
        try:
            return self._checkpoints.latest()
        except PairFlowError as error:
            _logger.warning("no picture of samples yet: %s", error)
            return None

    def draw(self, step: int, folder: Path) -> Path | None:
        """Shows samples of a checkpoint; one that was drawn already, by an interrupted training, stays as it is.

        Returns:
            The picture; None if there is none, which is no reason for a training to end.
        """
        if drawn := sorted(self._folder.glob(f"{_KEY}+step+{step}+*.png")):
            return drawn[0]
        try:
            return self._draw(step, folder)
        except Exception as error:
            _logger.warning("no picture of samples after %d steps: %s: %s", step, type(error).__name__, error)
            return None

    def _draw(self, step: int, folder: Path) -> Path:
        from PIL import Image

        loaded = checkpoint.load_model(folder, device=self._device)
        drawn = sample(
            loaded.model,
            loaded.process,
            SamplingSpec.suited_to(loaded.training.objective),
            num_samples=_SAMPLES,
            num_steps=_STEPS,
            length=loaded.length,
            device=self._device,
            progress=False,
        )
        self._folder.mkdir(parents=True, exist_ok=True)
        # As MLflow's page finds them: key, step, time and a name of its own; the small one is its preview.
        name = f"{_KEY}+step+{step}+timestamp+{time.time_ns() // 1_000_000}+{_KEY}-{step}"
        path, preview = self._folder / f"{name}.png", self._folder / f"{name}+compressed.webp"
        pictures.sample_grid(self._train, {f"after {step:,} steps": {_STEPS: drawn.tokens}}, path)
        with Image.open(path) as picture:
            picture.thumbnail((512, 512))
            picture.save(preview)
        self._stage.show((path, preview))
        return path
