"""FID and the Inception Score of images, for comparison with the literature; they need Inception's weights."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from pairflow import metrics
from pairflow.datasets.base import TokenDataset
from pairflow.devices import resolve_device
from pairflow.metrics import inception
from pairflow.metrics.frechet import Gaussian, frechet_distance
from pairflow.metrics.images import check_images, to_images
from pairflow.metrics.memory import Memory
from pairflow.progress import Progress, bar

REFERENCE_SIZE = 50_000
"""Training rows that the features of the data are taken of, at most: a seeded choice; CIFAR-10 has as many."""
_SEED = 0
_CHUNK = 64


class InceptionEvaluator:
    """FID to the training part (`fid`; arXiv 1706.08500), and the Inception Score (`inception_score`; 1606.03498).

    Features are those of pytorch-fid, so `fid` is the literature's figure, at the literature's number of samples:
    10,000 or 50,000; of fewer it comes out higher. The Inception Score is that of all samples at once: the literature
    cuts 50,000 into ten parts, and here the trials are the parts. `facts` has both for the held-out part, and the
    Inception Score of the training part.

    An image costs about 11 GFLOP: on a CPU, prefer the small network of `ImageEvaluator` for anything but a final
    figure.

    Raises:
        DatasetError: no image shape, a number of channels other than 1 and 3, or no weights in the data folder.
    """

    headline = metrics.Headline("fid", "FID", higher_is_better=False)
    notes: tuple[str, ...] = ()

    def __init__(
        self,
        dataset: TokenDataset,
        *,
        device: str = "auto",
        progress: Progress = True,
        data_dir: Path | None = None,
    ) -> None:
        check_images(dataset, channels=(1, 3))
        self._dataset = dataset
        self._device = resolve_device(device)
        self._network = inception.load(data_dir).to(self._device)
        train, test = dataset.part("train").tokens, dataset.part("test").tokens
        rows = np.arange(len(train))
        if len(rows) > REFERENCE_SIZE:
            rows = np.sort(np.random.default_rng(_SEED).choice(rows, REFERENCE_SIZE, replace=False))
        features, chances = self._outputs(train[rows], progress=progress)
        self._reference = Gaussian.of(features)
        facts = {"train_inception_score": inception_score(chances)}
        if len(test) > 1:
            facts |= {f"held_out_{name}": value for name, value in self._scores(test).items()}
        self._memory = Memory(dataset)
        self.facts: Mapping[str, float] = facts | dict(self._memory.facts)

    def measure(self, samples: np.ndarray) -> dict[str, float]:
        """{'fid': squared distance, 'inception_score': 1 to 1,008}, and what `Memory` says, of samples [N, D]."""
        tokens = metrics.check_samples(samples, self._dataset)
        return self._scores(tokens) | self._memory.measure(tokens)

    def _scores(self, tokens: np.ndarray) -> dict[str, float]:
        features, chances = self._outputs(tokens)
        return {
            "fid": frechet_distance(Gaussian.of(features), self._reference),
            "inception_score": inception_score(chances),
        }

    @torch.no_grad()
    def _outputs(self, tokens: np.ndarray, *, progress: Progress = False) -> tuple[np.ndarray, np.ndarray]:
        """Features [N, 2048] and class probabilities [N, 1008], float64."""
        features, chances = [], []
        for start in bar(range(0, len(tokens), _CHUNK), desc="Inception features", unit=" batches", progress=progress):
            images = to_images(tokens[start : start + _CHUNK], self._dataset, self._device)
            found = self._network.features(images.expand(-1, 3, -1, -1))
            features.append(found.double().cpu().numpy())
            chances.append(self._network.logits(found).double().softmax(dim=1).cpu().numpy())
        return np.concatenate(features), np.concatenate(chances)


def inception_score(chances: np.ndarray) -> float:
    """exp(E_x KL(p(y|x) ‖ p(y))), Eq. (6.3), of class probabilities [N, classes]: 1 to `classes` (arXiv 1606.03498)."""
    marginal = chances.mean(axis=0)
    logs = np.log(np.where(chances > 0, chances, 1)) - np.log(np.where(marginal > 0, marginal, 1))
    return float(np.exp((chances * logs).sum(axis=1).mean()))
