"""Metrics against closed forms, hand counts and data whose answer is known."""

import numpy as np
import pytest
import scipy.linalg

from pairflow import metrics
from pairflow.datasets.base import DatasetReport, TokenDataset
from pairflow.errors import DatasetError, SpecError
from pairflow.metrics import molecules
from pairflow.metrics.frechet import Gaussian, frechet_distance
from pairflow.metrics.images import ImageEvaluator
from pairflow.metrics.tokens import total_variation


def dataset(tokens, vocab_size, kind, *, vocab=None, image_shape=None, labels=None, num_test=None):
    num_test = len(tokens) // 4 if num_test is None else num_test
    rows = np.arange(len(tokens))
    return TokenDataset(
        name="made-up",
        tokens=np.ascontiguousarray(tokens, dtype=np.uint8),
        vocab_size=vocab_size,
        kind=kind,
        vocab=vocab,
        image_shape=image_shape,
        labels=labels,
        splits={"train": rows[num_test:], "test": rows[:num_test]},
        report=DatasetReport("made here", len(tokens), len(tokens)),
    )


def test_frechet_distance_of_diagonal_gaussians_is_the_closed_form():
    """|μ₁ − μ₂|² + Σ (σ₁ − σ₂)²."""
    first = Gaussian.of_moments(np.array([0.0, 1.0, 2.0]), np.diag([1.0, 4.0, 0.0]))
    second = Gaussian.of_moments(np.array([3.0, 1.0, 0.0]), np.diag([9.0, 1.0, 0.25]))
    assert frechet_distance(first, second) == pytest.approx(9 + 4 + 4 + 1 + 0.25)
    assert frechet_distance(first, first) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(("num_first", "num_second"), [(50, 50), (4, 50), (5, 3)])
def test_frechet_distance_of_full_covariances_is_that_of_the_matrix_root(num_first, num_second):
    """scipy's root of C₁C₂, with numpy's means and covariances; those of fewer than 7 rows are singular."""
    rng = np.random.default_rng(0)
    features = [rng.normal(size=(rows, 6)) @ rng.normal(size=(6, 6)) + rows for rows in (num_first, num_second)]
    means, covariances = ([of(each) for each in features] for of in (lambda x: x.mean(axis=0), lambda x: np.cov(x.T)))
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1]).real
    expected = np.square(means[0] - means[1]).sum() + np.trace(covariances[0] + covariances[1] - 2 * root)
    first, second = map(Gaussian.of, features)
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(second, first) == pytest.approx(expected, rel=1e-6)


def test_frechet_distance_of_samples_nears_that_of_their_gaussians():
    """N = 40,000 of N(0, 1) and N(1, 4) in one dimension: 1 + 1, with a standard error of about 0.02; |error| < 0.1."""
    rng = np.random.default_rng(0)
    first, second = (Gaussian.of(rng.normal(k, k + 1, size=(40_000, 1))) for k in range(2))
    assert frechet_distance(first, second) == pytest.approx(2, abs=0.1)


def test_molecules_are_counted_on_canonical_smiles():
    samples = ["CCO", "OCC", "C(O)C", "c1ccccc1", "C1=CC=CC=C1", "CCN", "", "C(", "C1CC", "xyz", "CN"]
    expected = molecules.MoleculeMetrics(num_samples=11, num_valid=7, num_unique=4, num_novel=2)
    training = ["C1=CC=CC=C1", "NC", "not a molecule", ""]
    assert molecules.measure(samples, training) == expected
    known = molecules.TrainingMolecules(training, progress=False)
    assert len(known) == 2
    assert molecules.measure(samples, known) == expected
    assert molecules.measure([], known) == molecules.MoleculeMetrics(0, 0, 0, 0)


def stripes(num_rows, seed, *, noise=0.1):
    """8×8 binary images of 3 classes: horizontal stripes, vertical stripes, a chessboard, with flipped pixels."""
    rng = np.random.default_rng(seed)
    row, column = np.indices((8, 8))
    patterns = np.stack([row % 2, column % 2, (row + column) % 2]).reshape(3, 64)
    labels = rng.integers(3, size=num_rows).astype(np.uint8)
    return patterns[labels] ^ (rng.random((num_rows, 64)) < noise), labels


@pytest.mark.slow
@pytest.mark.parametrize("labelled", [True, False])
def test_image_evaluator_orders_samples_by_how_far_they_are(labelled):
    tokens, labels = stripes(600, 0)
    data = dataset(tokens, 2, "images", image_shape=(1, 8, 8), labels=labels if labelled else None)
    evaluator = metrics.evaluator(data, device="cpu", progress=False)
    name = "frechet_classifier_features" if labelled else "frechet_random_features"
    assert evaluator.headline.name == name
    assert not evaluator.headline.higher_is_better
    assert ("classifier_accuracy" in evaluator.facts) is labelled
    assert evaluator.facts.get("classifier_accuracy", 1.0) > 0.95
    alike, noisier, random = (stripes(300, 1, noise=noise)[0] for noise in (0.1, 0.2, 0.5))
    distances = [evaluator.measure(samples)[name] for samples in (alike, noisier, random)]
    assert distances[0] < 0.2 * distances[1] < 0.2 * distances[2]
    assert evaluator.facts["held_out_" + name] < 0.2 * distances[1]
    again = metrics.evaluator(data, device="cpu", progress=False)
    assert again.measure(noisier)[name] == distances[1]


def test_one_sample_that_wakes_a_silent_feature_does_not_decide(monkeypatch):
    """As of a classifier of MNIST: a unit of deviation 3·10⁻⁷, one of 512 samples at 2·10⁻⁴, a distance of 117."""
    own = ImageEvaluator._features

    def with_a_silent_one(self, tokens):
        features = own(self, tokens)
        silent = np.where(tokens.all(axis=1), 2e-4, 0.0)  # of a white image, which only samples have
        return np.concatenate([features, silent[:, None]], axis=1)

    tokens, _ = stripes(600, 0)
    data = dataset(tokens, 2, "images", image_shape=(1, 8, 8))
    samples = stripes(300, 1)[0]
    samples[0] = 1
    plain = metrics.evaluator(data, device="cpu", progress=False).measure(samples)
    monkeypatch.setattr(ImageEvaluator, "_features", with_a_silent_one)
    assert metrics.evaluator(data, device="cpu", progress=False).measure(samples) == pytest.approx(plain, abs=0.01)


def test_total_variation_by_hand():
    first, second = np.array([[0, 1], [0, 1], [1, 1], [1, 1]]), np.array([[0, 2], [0, 2]])
    assert total_variation(first, second) == pytest.approx((0.5 + 1.0) / 2)
    assert total_variation(first, first[::-1]) == 0


def test_token_evaluator_by_hand():
    rows = np.array([[0, 0], [1, 1], [0, 0], [1, 1], [2, 2]])
    evaluator = metrics.evaluator(dataset(rows, 3, "tokens", num_test=2))
    assert evaluator.headline.name == "marginal_total_variation"
    independent = evaluator.measure(np.array([[0, 1], [1, 0], [0, 0], [1, 1]]))
    assert independent == {
        "marginal_total_variation": 0.0,
        "neighbour_total_variation": 0.5,
        "training_match_rate": 0.5,
        "nearest_training_hamming": 0.5,
        "unique_rate": 1.0,
    }
    assert evaluator.facts["train_marginal_total_variation"] == pytest.approx(1 / 3)
    single = metrics.evaluator(dataset(rows[:, :1], 3, "tokens", num_test=2)).measure(np.array([[2], [2]]))
    copies = {"training_match_rate": 1.0, "nearest_training_hamming": 0.0, "unique_rate": 0.5}
    assert single == {"marginal_total_variation": 1.0, **copies}


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.zeros((4, 3), int), r"samples: got shape \[4, 3\], expected \[N, 2\]"),
        (np.zeros((1, 2), int), "N ≥ 2"),
        (np.zeros((4, 2)), "samples: got dtype float64"),
        (np.full((4, 2), 3), "samples: got tokens from 3 to 3, expected 0 to 2"),
        (np.full((4, 2), -1), "samples: got tokens from -1"),
    ],
)
def test_samples_that_do_not_fit_are_named(samples, message):
    evaluator = metrics.evaluator(dataset(np.array([[0, 0], [1, 1], [2, 2]]), 3, "tokens", num_test=1))
    with pytest.raises(SpecError, match=message):
        evaluator.measure(samples)


def test_datasets_that_do_not_fit_are_named():
    rows = np.zeros((4, 4), int)
    with pytest.raises(SpecError, match=r"dataset\.kind: got 'sounds', expected one of molecules, images, tokens"):
        metrics.evaluator(dataset(rows, 2, "sounds"))
    with pytest.raises(DatasetError, match="no image_shape"):
        metrics.evaluator(dataset(rows, 2, "images"), device="cpu")
    with pytest.raises(DatasetError, match="no part"):
        metrics.evaluator(dataset(rows, 2, "tokens").part("train"))
