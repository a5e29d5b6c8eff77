"""FID's network against pytorch-fid on weights that both can make, and scores whose value is known."""

import hashlib

import numpy as np
import pytest
import torch

from pairflow import metrics
from pairflow.datasets.base import DatasetReport, TokenDataset
from pairflow.errors import DatasetError
from pairflow.metrics import extras, inception
from pairflow.metrics.fid import InceptionEvaluator, inception_score

# Features 0, 500, 1000, 1500 and 2047, the mean and the deviation of all, of two images: what
# pytorch_fid.inception.InceptionV3 of pytorch-fid 0.3.0 (on torchvision 0.29.1) gives with `seeded_weights`.
_GOLDEN = [
    [2.062365770339966, 0.0, 3.705548048019409, 5.825409412384033, 0.0],
    [1.6893372535705566, 0.0, 3.643721580505371, 6.141746520996094, 0.0],
]
_GOLDEN_MEAN, _GOLDEN_DEVIATION = 2.824831247329712, 3.96689772605896


def seeded_weights():
    """Weights by name, drawn by numpy so that they are the same everywhere, at a scale that keeps signals alive."""
    draw = np.random.default_rng(0)
    shapes = {name: tuple(each.shape) for name, each in inception.Inception().state_dict().items()}
    weights = {}
    for name, shape in sorted(shapes.items()):
        if name.endswith("num_batches_tracked"):
            continue
        if name.endswith(("running_var", "bn.weight")):
            values = 0.5 + draw.random(shape, dtype=np.float32)
        elif len(shape) == 4:
            values = draw.standard_normal(shape, dtype=np.float32) * np.float32(np.sqrt(2 / np.prod(shape[1:])))
        elif name == "fc.weight":
            values = draw.standard_normal(shape, dtype=np.float32) * np.float32(0.02)
        else:
            values = 0.1 * draw.standard_normal(shape, dtype=np.float32)
        weights[name] = torch.from_numpy(values)
    return weights


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    torch.save(seeded_weights(), folder / extras.INCEPTION)
    return folder


@pytest.fixture
def accepted(data_dir, monkeypatch):
    """The data folder, its file taken for the real one."""
    digest = hashlib.sha256((data_dir / extras.INCEPTION).read_bytes()).hexdigest()
    monkeypatch.setattr(inception, "_SHA256_START", digest[:8])
    return data_dir


def images(num_train=10, num_test=4, channels=1, *, side=6, seed=0):
    """Binary images of noise, the held-out part first."""
    shape = (num_test + num_train, channels * side * side)
    rows = np.arange(num_test + num_train)
    return TokenDataset(
        name="noise",
        tokens=np.random.default_rng(seed).integers(2, size=shape).astype(np.uint8),
        vocab_size=2,
        kind="images",
        vocab=None,
        image_shape=(channels, side, side),
        labels=None,
        splits={"train": rows[num_test:], "test": rows[:num_test]},
        report=DatasetReport("made here", len(rows), len(rows)),
    )


def test_features_are_those_of_pytorch_fid(accepted):
    network = inception.load(accepted)
    pixels = torch.from_numpy(np.random.default_rng(1).random((2, 3, 32, 32), dtype=np.float32))
    with torch.no_grad():
        features = network.features(2 * pixels - 1)
    assert features.shape == (2, inception.NUM_FEATURES)
    np.testing.assert_allclose(features[:, [0, 500, 1000, 1500, 2047]], _GOLDEN, rtol=1e-4, atol=1e-4)
    assert float(features.mean()) == pytest.approx(_GOLDEN_MEAN, rel=1e-4)
    assert float(features.std()) == pytest.approx(_GOLDEN_DEVIATION, rel=1e-4)
    logits = network.logits(features)
    np.testing.assert_allclose(logits, features.numpy() @ seeded_weights()["fc.weight"].numpy().T, rtol=1e-4, atol=1e-3)


def test_inception_score_of_known_distributions():
    """exp of the mutual information: as many as there are sure classes, equally often; 1 if nothing is told apart."""
    assert inception_score(np.eye(7)) == pytest.approx(7)
    assert inception_score(np.tile([0.2, 0.3, 0.5], (4, 1))) == pytest.approx(1)
    half = np.array([[1.0, 0.0], [0.5, 0.5]])  # KL to [¾, ¼]: log 4/3 and ½ log (½/¾) + ½ log (½/¼)
    expected = np.exp((np.log(4 / 3) + 0.5 * np.log(2 / 3) + 0.5 * np.log(2)) / 2)
    assert inception_score(half) == pytest.approx(expected)


@pytest.mark.slow
def test_evaluator_measures_fid_and_inception_score_where_the_weights_are(accepted):
    data = images()
    evaluator = metrics.evaluator(data, device="cpu", progress=False, data_dir=accepted)
    assert isinstance(evaluator, InceptionEvaluator)
    assert metrics.version(data, data_dir=accepted) == f"{metrics.VERSION} inception"
    assert evaluator.headline.name == "fid"
    assert not evaluator.headline.higher_is_better
    assert {"train_inception_score", "held_out_fid", "held_out_inception_score"} < set(evaluator.facts)
    train = data.part("train").tokens
    scores = evaluator.measure(train)
    assert {"fid", "inception_score", "training_match_rate"} < set(scores)
    assert scores["inception_score"] == pytest.approx(evaluator.facts["train_inception_score"])
    assert 1 <= scores["inception_score"] <= len(train)
    blank = evaluator.measure(np.zeros_like(train[:4]))
    assert scores["fid"] < 1e-3 * evaluator.facts["held_out_fid"] < 1e-3 * blank["fid"]
    assert blank["inception_score"] == pytest.approx(1, abs=1e-5)


def test_small_network_stays_where_it_is_asked_for_or_the_weights_are_not(accepted, tmp_path, caplog):
    caplog.set_level("INFO", logger="pairflow.metrics")
    data = images(20, 8)
    for options in ({"image_features": "own", "data_dir": accepted}, {"data_dir": tmp_path}):
        evaluator = metrics.evaluator(data, device="cpu", progress=False, **options)
        assert evaluator.headline.name == "frechet_random_features"
        assert metrics.version(data, **options) == metrics.VERSION
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2  # one line each
    assert all("FID" in line and inception.ORIGIN in line and "PAIRFLOW_DATA_DIR" in line for line in said)


def test_weights_are_looked_for_in_the_data_folder_of_the_environment(data_dir, tmp_path, monkeypatch):
    monkeypatch.delenv("PAIRFLOW_DATA_DIR", raising=False)
    assert extras.inception_weights() is None
    monkeypatch.setenv("PAIRFLOW_DATA_DIR", str(data_dir))
    assert extras.inception_weights() == data_dir / extras.INCEPTION
    assert extras.inception_weights(tmp_path) is None


def test_fid_without_weights_says_where_they_come_from(tmp_path):
    with pytest.raises(DatasetError, match=r"need Inception's weights, which are not here; put https://github\.com/"):
        metrics.evaluator(images(), image_features="inception", device="cpu", progress=False, data_dir=tmp_path)


def test_another_file_under_the_name_is_refused(data_dir):
    with pytest.raises(DatasetError, match=r"its SHA-256 begins with [0-9a-f]{8}, expected 6726825d"):
        inception.load(data_dir)


@pytest.mark.parametrize("content", ["no archive", "other tensors", "code", "nothing"])
def test_a_file_without_the_weights_is_refused(tmp_path, monkeypatch, content):
    path = tmp_path / extras.INCEPTION
    if content == "other tensors":
        torch.save({"fc.weight": torch.zeros(3)}, path)
    elif content == "code":
        torch.save({"fc.weight": inception.Inception}, path)  # what weights_only refuses to read
    else:
        path.write_bytes(b"no weights" if content == "no archive" else b"")
    monkeypatch.setattr(inception, "_SHA256_START", hashlib.sha256(path.read_bytes()).hexdigest()[:8])
    with pytest.raises(DatasetError, match="holds no weights of FID's Inception"):
        inception.load(tmp_path)


def test_images_of_two_channels_have_no_fid(accepted):
    with pytest.raises(DatasetError, match="images of 2 channels, expected 1 or 3 for FID"):
        metrics.evaluator(images(channels=2), image_features="inception", device="cpu", data_dir=accepted)
