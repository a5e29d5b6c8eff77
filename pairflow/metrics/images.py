"""Fréchet distances of images, in features that can be had without a download.

Labelled data: the features of a small classifier trained here on the labels. Unlabelled data: those of a
seeded random network. Neither is the FID of the literature, which needs Inception's weights: figures compare
only within one dataset.
"""

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as nnf
from torch import nn

from pairflow import metrics
from pairflow.datasets.base import TokenDataset
from pairflow.devices import resolve_device
from pairflow.errors import DatasetError
from pairflow.metrics import inception
from pairflow.metrics.frechet import Gaussian, frechet_distance
from pairflow.metrics.memory import Memory
from pairflow.optimizers import Adam
from pairflow.progress import Progress, bar

_NUM_FEATURES = 32
_STEPS = 500
_BATCH_SIZE = 128
_LEARNING_RATE = 2e-3
_DROPOUT = 0.3
_FARTHEST = 50.0
"""Logits further below a row's largest count as that far: probabilities of e⁻⁵⁰ change no sum in float32, and those of
e⁻⁹⁰ are subnormal numbers, with which a processor computes ten times slower.
"""
_SEED = 0
_LEAST_SHARE = 0.01  # of the median deviation, in which features are measured at least
_CHUNK = 1024


class Classifier(nn.Module):
    """A small convolutional classifier whose last hidden layer serves as a feature space.

    Args:
        image_shape: (C, H, W).
        num_classes: number of labels.
    """

    def __init__(self, image_shape: tuple[int, int, int], num_classes: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(image_shape[0], 24, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(24, 48, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Conv2d(48, 48, 3, padding=1),
            nn.GELU(),
            nn.AdaptiveAvgPool2d(4),
            nn.Flatten(),
            nn.Dropout(_DROPOUT),
            nn.Linear(48 * 16, _NUM_FEATURES),
            nn.GELU(),
        )
        self.head = nn.Sequential(nn.Dropout(_DROPOUT), nn.Linear(_NUM_FEATURES, num_classes))

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Images [N, C, H, W] in [−1, 1] -> features [N, 32]."""
        return self.body(images)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images [N, C, H, W] in [−1, 1] -> class logits [N, num_classes]."""
        return self.head(self.features(images))


class RandomFeatures(nn.Module):
    """Two convolutions with fixed random weights, ReLU, averaged over the image: colour and local texture
    statistics.

    The weights come from numpy's generator, so they are the same on every machine and device. Features: [N,
    64].
    """

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        draw = np.random.default_rng(_SEED)
        self.register_buffer("first", _he_normal(draw, (16, num_channels, 3, 3)), persistent=False)
        self.register_buffer("second", _he_normal(draw, (48, 16, 3, 3)), persistent=False)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Images [N, C, H, W] in [−1, 1] -> features [N, 64]."""
        low = nnf.conv2d(images, self.get_buffer("first"), padding=1).relu()
        high = nnf.conv2d(low, self.get_buffer("second"), stride=2, padding=1).relu()
        return torch.cat([low.mean(dim=(2, 3)), high.mean(dim=(2, 3))], dim=1)


class ImageEvaluator:
    """Fréchet distance to the training part: `frechet_classifier_features` or `frechet_random_features`; and `Memory`.

    The reference is the training part, as is usual for FID. Features are measured in the training part's standard
    deviations, so the figure does not depend on the scale that a network happens to give them: a shift of all F
    features by one deviation adds F. One that hardly varies there is measured in a hundredth of the others' median.
    `facts` has the same distance for the held-out part, what samples as good as unseen data would get (and more for few
    held-out rows), and the classifier's held-out accuracy.
    """

    def __init__(self, dataset: TokenDataset, *, device: str = "auto", progress: Progress = True) -> None:
        channels = check_images(dataset)
        self._dataset = dataset
        self._device = resolve_device(device)
        train, test = dataset.part("train"), dataset.part("test")
        facts: dict[str, float] = {}
        self._network: Classifier | RandomFeatures
        if train.labels is None:
            self._network = RandomFeatures(channels).to(self._device)
            kind = "random"
        else:
            self._network = train_classifier(train, device=self._device, progress=progress)
            facts["classifier_accuracy"] = accuracy(self._network, test, device=self._device)
            kind = "classifier"
        name = f"frechet_{kind}_features"
        self.headline = metrics.Headline(name, f"Fréchet distance ({kind} features)", higher_is_better=False)
        features = self._features(train.tokens)
        deviations = features.std(axis=0)
        # A feature that is all but silent on the training part would make one sample that wakes it decide the figure.
        self._scale = deviations.clip(min=max(_LEAST_SHARE * np.median(deviations), 1e-6))
        self._reference = Gaussian.of(features / self._scale)
        if len(test) > 1:
            facts["held_out_" + name] = self._distance(test.tokens)
        self._memory = Memory(dataset)
        self.facts: Mapping[str, float] = facts | dict(self._memory.facts)
        self.notes: tuple[str, ...] = (f"FID and Inception Score: not measured; for them {inception.where_from()}",)

    def measure(self, samples: np.ndarray) -> dict[str, float]:
        """{headline's name: squared Fréchet distance}, and what `Memory` says, of samples [N, D]."""
        tokens = metrics.check_samples(samples, self._dataset)
        return {self.headline.name: self._distance(tokens)} | self._memory.measure(tokens)

    def _distance(self, tokens: np.ndarray) -> float:
        return frechet_distance(Gaussian.of(self._features(tokens) / self._scale), self._reference)

    @torch.no_grad()
    def _features(self, tokens: np.ndarray) -> np.ndarray:
        chunks = [
            self._network.features(to_images(tokens[start : start + _CHUNK], self._dataset, self._device)).cpu()
            for start in range(0, len(tokens), _CHUNK)
        ]
        return torch.cat(chunks).double().numpy()


def check_images(dataset: TokenDataset, channels: tuple[int, ...] = ()) -> int:
    """The number of channels of a dataset of images.

    Args:
        dataset: of images.
        channels: those that will do; any by default.

    Raises:
        DatasetError: it has no image shape, or another number of channels.
    """
    if dataset.image_shape is None:
        raise DatasetError(f"dataset '{dataset.name}' has kind 'images' but no image_shape")
    got = dataset.image_shape[0]
    if channels and got not in channels:
        expected = " or ".join(map(str, channels))
        raise DatasetError(f"dataset '{dataset.name}': images of {got} channels, expected {expected} for FID")
    return got


def to_images(tokens: np.ndarray, dataset: TokenDataset, device: torch.device) -> torch.Tensor:
    """Tokens [N, D] as intensities in [−1, 1]: float32 [N, C, H, W]."""
    scaled = tokens.astype(np.float32) * (2 / (dataset.vocab_size - 1)) - 1
    return torch.from_numpy(scaled).view(-1, *(dataset.image_shape or ())).to(device)


def train_classifier(train: TokenDataset, *, device: torch.device, progress: Progress = True) -> Classifier:
    """Trains the classifier on the labels of `train`, always from the same seed: 500 steps of 128.

    Raises:
        DatasetError: the data has no labels or no image shape.
    """
    if train.labels is None or train.image_shape is None:
        raise DatasetError(f"dataset '{train.name}': a classifier needs labels and an image shape")
    rows = np.random.default_rng(_SEED).integers(len(train), size=(_STEPS, _BATCH_SIZE))
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(_SEED)
        network = Classifier(train.image_shape, int(train.labels.max()) + 1).to(device)
        optimizer = Adam(network.parameters(), lr=_LEARNING_RATE)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, _STEPS)
        for batch in bar(rows, desc="train classifier", unit=" steps", progress=progress):
            images = to_images(train.tokens[batch], train, device)
            labels = torch.from_numpy(train.labels[batch].astype(np.int64)).to(device)
            optimizer.zero_grad(set_to_none=True)
            logits = network(images)
            nearest = torch.maximum(logits, logits.detach().amax(dim=1, keepdim=True) - _FARTHEST)
            nnf.cross_entropy(nearest, labels).backward()
            optimizer.step()
            schedule.step()
    return network.eval().requires_grad_(False)


@torch.no_grad()
def accuracy(network: Classifier, test: TokenDataset, *, device: torch.device) -> float:
    """Fraction of labelled rows that the classifier gets right, 0 to 1."""
    if test.labels is None:
        raise DatasetError(f"dataset '{test.name}': accuracy needs labels")
    right = 0
    for start in range(0, len(test), _CHUNK):
        part = slice(start, start + _CHUNK)
        predicted = network(to_images(test.tokens[part], test, device)).argmax(dim=1).cpu().numpy()
        right += int((predicted == test.labels[part]).sum())
    return right / len(test)


def _he_normal(draw: np.random.Generator, shape: tuple[int, int, int, int]) -> torch.Tensor:
    deviation = np.sqrt(2 / np.prod(shape[1:]))
    return torch.from_numpy(draw.normal(scale=deviation, size=shape).astype(np.float32))
