"""Subsets, splits, parts and digests: who is held out depends on the seed alone."""

import hashlib
import json
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pairflow import datasets
from pairflow.datasets.splits import choose_rows, seeded_order, seeded_split
from pairflow.errors import DatasetError
from pairflow.spec import DatasetSpec

GOLDEN_ORDER = [6, 3, 8, 1, 4, 5, 9, 2, 7, 0]


def test_order_is_a_permutation_that_never_changes():
    """Golden: PCG64's raw stream is promised by NumPy, so a split made years ago can be made again."""
    assert seeded_order(10, seed=0, stream=0).tolist() == GOLDEN_ORDER
    assert sorted(seeded_order(1000, seed=3, stream=1)) == list(range(1000))
    assert seeded_order(1000, 3, 1).tolist() != seeded_order(1000, 3, 0).tolist()


@given(st.integers(2, 300), st.floats(0.01, 0.99), st.integers(0, 2**63 - 1))
def test_parts_are_disjoint_ascending_and_whole(num_rows, holdout, seed):
    num_test = round(num_rows * holdout)
    if num_test in (0, num_rows):
        with pytest.raises(DatasetError, match="too few to split"):
            seeded_split(num_rows, holdout, seed, source="here")
        return
    parts = seeded_split(num_rows, holdout, seed, source="here")
    assert len(parts["test"]) == num_test
    assert all(rows.dtype == np.int64 and (np.diff(rows) > 0).all() for rows in parts.values())
    assert sorted(np.concatenate(list(parts.values()))) == list(range(num_rows))


def test_every_row_is_held_out_about_equally_often():
    """Over 400 seeds, 50 rows, 10 % held out: each row's count is binomial(400, 0.1), 40 ± 6.

    The bound of 5.2 deviations on 50 rows has a false-alarm rate below 1e-4.
    """
    counts = np.zeros(50)
    for seed in range(400):
        counts[seeded_split(50, 0.1, seed, source="")["test"]] += 1
    assert counts.sum() == 2000
    assert abs(counts - 40).max() < 5.2 * np.sqrt(400 * 0.1 * 0.9)


@given(st.integers(4, 200), st.data())
def test_subset_of_a_published_split_is_proportional(num_rows, data):
    num_train = data.draw(st.integers(1, num_rows - 1))
    max_rows = data.draw(st.integers(1, num_rows))
    chosen = choose_rows(num_rows, max_rows, seed=1, num_train=num_train)
    assert len(set(chosen.tolist())) == len(chosen) == max_rows
    assert (chosen < num_train).sum() == round(max_rows * num_train / num_rows)


@pytest.fixture
def rows(tmp_path):
    """Row i holds i in base 7: every row tells its number."""
    tokens = np.stack(np.unravel_index(np.arange(343), (7, 7, 7)), axis=1)
    np.save(tmp_path / "rows.npy", tokens)
    return tmp_path / "rows.npy"


def load(path, **fields):
    return datasets.load(DatasetSpec(name="tokens", path=str(path), vocab_size=7, **fields))


def numbers(dataset):
    return np.ravel_multi_index(dataset.tokens.T.astype(int), (7, 7, 7)).tolist()


def test_seed_alone_decides_the_split(rows):
    one, same, other = load(rows, split_seed=5), load(rows, split_seed=5), load(rows, split_seed=6)
    assert one.splits["test"].tolist() == same.splits["test"].tolist()
    assert one.splits["test"].tolist() != other.splits["test"].tolist()
    assert one.digest == other.digest
    assert one.part("train").digest == same.part("train").digest != other.part("train").digest
    assert len(load(rows, holdout=0.5).splits["test"]) == 172


def test_subset_is_seeded_ascending_and_reported(rows):
    some = load(rows, max_rows=100, split_seed=2)
    assert numbers(some) == sorted(numbers(some)) != list(range(100))
    assert numbers(some) == numbers(load(rows, max_rows=100, split_seed=2))
    assert numbers(some) != numbers(load(rows, max_rows=100, split_seed=3))
    assert some.report.dropped == {"not in the random subset (max_rows)": 243}
    assert (some.report.rows_read, some.report.rows_kept, len(some)) == (343, 100, 100)
    assert load(rows, max_rows=10_000).digest == load(rows).digest


def test_a_part_holds_its_rows_and_has_no_parts(rows):
    whole = load(rows)
    train, test = whole.part("train"), whole.part("test")
    assert numbers(train) == whole.splits["train"].tolist()
    assert sorted(numbers(train) + numbers(test)) == list(range(343))
    assert (train.name, dict(train.splits)) == ("tokens/train", {})
    with pytest.raises(DatasetError, match="no part 'valid'; parts: train, test"):
        whole.part("valid")
    with pytest.raises(DatasetError, match="a part already"):
        train.part("train")


def test_labels_follow_their_rows():
    digits = datasets.load(DatasetSpec(name="digits", max_rows=500))
    full = datasets.load(DatasetSpec(name="digits"))
    assert full.labels is not None
    label_of = {row.tobytes(): label for row, label in zip(full.tokens, full.labels, strict=True)}
    for part in ("train", "test"):
        rows = digits.part(part)
        assert rows.labels is not None
        assert all(label_of[row.tobytes()] == label for row, label in zip(rows.tokens, rows.labels, strict=True))


@pytest.mark.parametrize("num_rows", [1, 4])
def test_too_few_rows_to_split(tmp_path, num_rows):
    np.save(tmp_path / "few.npy", np.zeros((num_rows, 3), dtype=np.uint8))
    with pytest.raises(DatasetError, match=rf"few\.npy: {num_rows} rows are too few to split"):
        load(tmp_path / "few.npy")


def test_digest_is_what_its_documentation_says(rows):
    whole = load(rows)
    header = {"format": "pairflow.dataset/1", "shape": [343, 3], "vocab_size": 7, "vocabulary": None}
    text = json.dumps(header, sort_keys=True, separators=(",", ":")) + "\n"
    content = b"".join(bytes([value]) for row in whole.tokens.tolist() for value in row)
    assert whole.digest == hashlib.sha256(text.encode() + content).hexdigest()


def test_digest_sees_tokens_vocabulary_and_size_but_not_the_input_type(tmp_path):
    tokens = np.arange(12).reshape(6, 2) % 3
    seen = set()
    for name, array in [("a", tokens), ("b", np.asfortranarray(tokens.astype(">i2"))), ("c", tokens.astype(np.uint8))]:
        np.save(tmp_path / f"{name}.npy", array)
        seen.add(datasets.load(DatasetSpec(name="tokens", path=str(tmp_path / f"{name}.npy"), vocab_size=7)).digest)
    assert len(seen) == 1
    bigger = DatasetSpec(name="tokens", path=str(tmp_path / "a.npy"), vocab_size=300)
    assert datasets.load(bigger).tokens.dtype == np.uint16
    seen.add(datasets.load(bigger).digest)
    for words in (["a", "b", "c"], ["a", "b", "d"]):
        (tmp_path / "words.json").write_text(json.dumps(words))
        spec = DatasetSpec(name="tokens", path=str(tmp_path / "a.npy"), vocab_path=str(tmp_path / "words.json"))
        seen.add(datasets.load(spec).digest)
    np.save(tmp_path / "a.npy", tokens.reshape(4, 3))
    seen.add(load(tmp_path / "a.npy", holdout=0.5).digest)
    assert len(seen) == 5


def test_a_dataset_travels_between_processes(rows):
    whole = load(rows)
    copy = pickle.loads(pickle.dumps(whole))  # noqa: S301 - our own bytes, as Ray would send them
    assert copy.digest == whole.digest
