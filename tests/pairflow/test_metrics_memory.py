"""Copies and nearest training rows against scipy, and the authors' protocol on rows where it differs from ours."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from pairflow import metrics
from pairflow.metrics import memory
from pairflow.metrics.memory import Memory

from .test_metrics import dataset
from .test_metrics_molecules import VOCAB, rows
from .test_metrics_molecules import dataset as molecules_of


def tokens_of(data, vocab_size, kind="tokens"):
    """Of whose rows the first twenty are held out."""
    shape = (1, 4, 4) if kind == "images" else None
    made = dataset(data, vocab_size, kind, num_test=20, image_shape=shape)
    return replace(made, tokens=np.ascontiguousarray(data, np.min_scalar_type(vocab_size - 1)))


@pytest.mark.parametrize(("length", "vocab_size"), [(1, 2), (9, 3), (300, 2), (40, 700)])
def test_nearest_rows_are_those_of_all_distances(length, vocab_size):
    """Of some rows, some of them copies; above 255 positions, and above 255 tokens."""
    draw = np.random.default_rng(length)
    data = draw.integers(vocab_size, size=(60, length))
    held_out, train = data[:20], data[20:]
    samples = np.concatenate([draw.integers(vocab_size, size=(15, length)), train[:4], train[:1]])
    found = Memory(tokens_of(data, vocab_size))
    expected = [np.round(cdist(each, train, "hamming").min(axis=1) * length) for each in (samples, held_out)]
    scores = found.measure(samples)
    assert scores["nearest_training_hamming"] == pytest.approx(expected[0].mean())
    assert scores["training_match_rate"] == pytest.approx((expected[0] == 0).mean())
    assert scores["unique_rate"] == len({tuple(row) for row in samples}) / 20
    assert found.facts == {
        "held_out_nearest_training_hamming": pytest.approx(expected[1].mean()),
        "held_out_training_match_rate": pytest.approx((expected[1] == 0).mean()),
    }


def test_many_rows_are_compared_in_part_and_copies_counted_in_all(monkeypatch):
    monkeypatch.setattr(memory, "MOST_COMPARISONS", 7 * 40 * 5)
    monkeypatch.setattr(memory, "FEWEST_ROWS", 3)
    data = np.random.default_rng(0).integers(4, size=(60, 5))
    found = Memory(tokens_of(data, 4))
    far = np.full((10, 5), 9, np.uint8)
    scores = found.measure(np.concatenate([far[:7], data[20:23]]))
    assert scores["nearest_training_hamming"] == 5  # the first seven
    assert scores["training_match_rate"] == pytest.approx(0.3)
    monkeypatch.setattr(memory, "MOST_COMPARISONS", 1)
    assert found.measure(np.concatenate([data[20:23], far]))["nearest_training_hamming"] == 0


@pytest.mark.parametrize("kind", ["tokens", "images"])
def test_every_kind_of_data_has_them(kind):
    data = np.random.default_rng(1).integers(2, size=(80, 16))
    evaluator = metrics.evaluator(tokens_of(data, 2, kind), device="cpu", progress=False, image_features="own")
    scores = evaluator.measure(data[20:])
    assert (scores["training_match_rate"], scores["nearest_training_hamming"]) == (1, 0)
    assert evaluator.facts["held_out_nearest_training_hamming"] > 0


def test_the_authors_protocol():
    """Eight rows whose end is plain to see, each decoded by hand in both protocols; C's held-out row is published."""
    evaluator = metrics.evaluator(molecules_of(("CC", "CCO"), ("CCC", "CCN")), device="cpu", progress=False)
    bos, eos, pad, carbon, oxygen = range(5)
    samples = np.full((8, 14), pad)
    for row, tokens in enumerate(
        [
            [bos, carbon, carbon, eos],  # CC: ours too, and in the training part
            [carbon, carbon, carbon, eos],  # CCC without <bos>: theirs alone, and held out
            [bos, oxygen, pad, carbon, bos, eos],  # OC, specials dropped: theirs alone
            [bos, oxygen, carbon, carbon],  # OCC without <eos>: taken whole, theirs alone
            [bos, carbon, carbon, oxygen, eos, carbon],  # CCO: ours too
            [bos, oxygen, carbon, carbon, eos],  # OCC: ours too, which to us is CCO again, and to them OCC again
            [bos, eos],  # empty: nobody's
            [eos, bos, carbon, eos],  # cut at the first <eos>: empty to them; C to us
        ]
    ):
        samples[row, : len(tokens)] = tokens
    scores = evaluator.measure(samples)
    ours = {name: scores[f"num_{name}"] for name in ("valid", "unique", "novel")}
    theirs = {name: scores[f"num_{name}_authors"] for name in ("valid", "unique", "novel")}
    assert ours == {"valid": 4, "unique": 3, "novel": 1}  # CC, CCO, OCC, C
    assert theirs == {"valid": 6, "unique": 5, "novel": 2}  # CC, CCC, OC, OCC, CCO, OCC; OC and OCC are new strings
    assert evaluator.headline.name == "num_unique"
    assert scores["training_match_rate"] == 1 / 8
    assert rows("CC").shape == (1, 14)
    assert VOCAB.tokens[:5] == ("<bos>", "<eos>", "<pad>", "C", "O")
