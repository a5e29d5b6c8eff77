"""What samples are worth: `evaluator` prepares, once for a dataset, the measure that fits its kind of data.

Heavy libraries (torch, RDKit) are loaded by the evaluator that needs them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from pairflow.datasets.base import TokenDataset
from pairflow.errors import SpecError
from pairflow.progress import Progress


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
    """

    headline: Headline
    facts: Mapping[str, float]

    def measure(self, samples: np.ndarray) -> dict[str, float]:
        """Metrics of samples [N, D], integers."""


def _molecules(dataset: TokenDataset, device: str, progress: Progress) -> Evaluator:
    from pairflow.metrics.molecules import MoleculeEvaluator

    return MoleculeEvaluator(dataset, progress=progress)


def _images(dataset: TokenDataset, device: str, progress: Progress) -> Evaluator:
    from pairflow.metrics.images import ImageEvaluator

    return ImageEvaluator(dataset, device=device, progress=progress)


def _tokens(dataset: TokenDataset, device: str, progress: Progress) -> Evaluator:
    from pairflow.metrics.tokens import TokenEvaluator

    return TokenEvaluator(dataset)


EVALUATORS: dict[str, Callable[[TokenDataset, str, Progress], Evaluator]] = {
    "molecules": _molecules,
    "images": _images,
    "tokens": _tokens,
}


def evaluator(dataset: TokenDataset, *, device: str = "auto", progress: Progress = True) -> Evaluator:
    """Prepares the evaluator of a dataset: canonical training SMILES, a trained classifier, or marginals.

    Args:
        dataset: the whole dataset, with its parts 'train' and 'test'.
        device: where a classifier is trained and run.
        progress: show progress bars.

    Raises:
        SpecError: no evaluator for that kind of data.
        DatasetError: the dataset has no parts.
    """
    if dataset.kind not in EVALUATORS:
        raise SpecError(f"dataset.kind: got {dataset.kind!r}, expected one of {', '.join(EVALUATORS)}")
    return EVALUATORS[dataset.kind](dataset, device, progress)


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
