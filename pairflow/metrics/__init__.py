"""What samples are worth: `evaluator` prepares, once for a dataset, the measure that fits its kind of data.

Heavy libraries (torch, RDKit) are loaded by the evaluator that needs them. May import datasets and what both stand on
(`spec`, `errors`, `devices`, `progress`): a measure knows nothing of the model whose samples it is given.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from pairflow.datasets.base import TokenDataset
from pairflow.errors import SpecError
from pairflow.metrics import extras
from pairflow.progress import Progress
from pairflow.spec import ImageFeatures

# 3: copies and nearest training rows of every kind of data; molecules by the distinct valid ones, and by the authors'
# protocol. Scores from before lack those, so they are measured again.
# 4: features of images that are all but silent on the training part no longer decide a distance.
VERSION = "metrics/4"
_logger = logging.getLogger("pairflow.metrics")


@dataclass(frozen=True)
class Headline:
    """The one metric that a table or a figure shows first.

    Attributes:
        name: key in the result of `measure`.
        label: for a column or an axis.
        higher_is_better: whether more is better.
    """

    name: str
    label: str
    higher_is_better: bool


class Evaluator(Protocol):
    """A measure prepared for one dataset; reuse it for every set of samples.

    Attributes:
        headline: the main metric.
        facts: what a reader needs to judge the figures, such as a classifier's accuracy.
        notes: what is not measured here, and why; a sentence each.
    """

    headline: Headline
    facts: Mapping[str, float]
    notes: tuple[str, ...]

    def measure(self, samples: np.ndarray) -> dict[str, float]:
        """Metrics of samples [N, D], integers; finite numbers. One that cannot be had of these samples is absent."""


@dataclass(frozen=True)
class _Wishes:
    """The options of `evaluator`."""

    image_features: ImageFeatures
    device: str
    progress: Progress
    data_dir: Path | None


def _molecules(dataset: TokenDataset, wishes: _Wishes) -> Evaluator:
    from pairflow.metrics.molecules import MoleculeEvaluator

    return MoleculeEvaluator(dataset, device=wishes.device, progress=wishes.progress)


def _images(dataset: TokenDataset, wishes: _Wishes) -> Evaluator:
    if _takes_inception(wishes.image_features, wishes.data_dir):
        from pairflow.metrics.fid import InceptionEvaluator

        return InceptionEvaluator(dataset, device=wishes.device, progress=wishes.progress, data_dir=wishes.data_dir)
    from pairflow.metrics.images import ImageEvaluator

    return ImageEvaluator(dataset, device=wishes.device, progress=wishes.progress)


def _tokens(dataset: TokenDataset, wishes: _Wishes) -> Evaluator:
    from pairflow.metrics.tokens import TokenEvaluator

    return TokenEvaluator(dataset)


EVALUATORS: dict[str, Callable[[TokenDataset, _Wishes], Evaluator]] = {
    "molecules": _molecules,
    "images": _images,
    "tokens": _tokens,
}


def evaluator(
    dataset: TokenDataset,
    *,
    image_features: ImageFeatures = "auto",
    device: str = "auto",
    progress: Progress = True,
    data_dir: Path | None = None,
) -> Evaluator:
    """Prepares the evaluator of a dataset: its molecules' properties, a network's features of it, or marginals.

    Args:
        dataset: the whole dataset, with its parts 'train' and 'test'.
        image_features: of images: 'inception' for FID and the Inception Score, 'own' for the Fréchet distance in the
            features of a small network made here, 'auto' for the first where its weights are on disk.
        device: where networks are trained and run.
        progress: show progress bars.
        data_dir: folder in which Inception's weights may lie; $PAIRFLOW_DATA_DIR by default, read now.

    Raises:
        SpecError: no evaluator for that kind of data.
        DatasetError: the dataset has no parts, or the weights are asked for and not there.
    """
    _check_kind(dataset)
    made = EVALUATORS[dataset.kind](dataset, _Wishes(image_features, device, progress, data_dir))
    for note in made.notes:
        _logger.info("%s", note)
    return made


class OfAKind(Protocol):
    """A data set, or what is known of one."""

    @property
    def kind(self) -> str: ...


def version(dataset: OfAKind, *, image_features: ImageFeatures = "auto", data_dir: Path | None = None) -> str:
    """What the scores of `evaluator` are known by: metrics are versioned as engines are.

    Figures that are computed differently, and one figure more, have another version: such as "metrics/4 fcd/1.2.2".

    Raises:
        SpecError: no evaluator for that kind of data.
    """
    _check_kind(dataset)
    if dataset.kind == "molecules":
        release = extras.chemnet_release()
        return VERSION if release is None else f"{VERSION} {extras.CHEMNET}/{release}"
    if dataset.kind == "images" and _takes_inception(image_features, data_dir):
        return f"{VERSION} inception"
    return VERSION


def _check_kind(dataset: OfAKind) -> None:
    if dataset.kind not in EVALUATORS:
        raise SpecError(f"dataset.kind: got {dataset.kind!r}, expected one of {', '.join(EVALUATORS)}")


def _takes_inception(image_features: ImageFeatures, data_dir: Path | None) -> bool:
    if image_features == "auto":
        return extras.inception_weights(data_dir) is not None
    return image_features == "inception"


def check_samples(samples: np.ndarray, dataset: TokenDataset) -> np.ndarray:
    """Samples must be tokens [N, D] of the dataset's vocabulary, N ≥ 2.

    Raises:
        SpecError: what does not fit.
    """
    samples = np.asarray(samples)
    if samples.ndim != 2 or samples.shape[1] != dataset.length or len(samples) < 2:
        raise SpecError(f"samples: got shape {list(samples.shape)}, expected [N, {dataset.length}], N ≥ 2")
    if not np.issubdtype(samples.dtype, np.integer):
        raise SpecError(f"samples: got dtype {samples.dtype}, expected integer tokens")
    if samples.min() < 0 or samples.max() >= dataset.vocab_size:
        raise SpecError(
            f"samples: got tokens from {samples.min()} to {samples.max()}, expected 0 to {dataset.vocab_size - 1}"
        )
    return samples
