"""The data sets that come with the dependencies, against independent readings of the same files."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pairflow import datasets
from pairflow.errors import DatasetError, SpecError
from pairflow.spec import DatasetSpec, parse

DIGITS_DIGEST = "0259ced36d63bb05acfab524af6d9cfbbfef317f17ff98f0c9443652ee8692d0"
NCI_DIGEST = "52c8a8876cb9af728c190053b35c646e81016e958db0de100687cf2ff75a86e7"


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="module")
def nci(cache_dir):
    return datasets.load(DatasetSpec(name="nci"), cache_dir=cache_dir, progress=False)


def test_registry_and_spec_know_the_same_names():
    schema = DatasetSpec.model_json_schema()["properties"]["name"]["enum"]
    assert {info.name for info in datasets.names()} == set(schema)
    assert all(info.description and info.origin for info in datasets.names())


def test_import_is_light():
    heavy = {"rdkit", "sklearn", "torch", "pyarrow", "zarr", "requests", "pooch"}
    script = f"import sys, pairflow.datasets; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_unknown_names_are_refused_at_both_doors():
    with pytest.raises(SpecError, match="digitz"):
        parse(DatasetSpec, {"name": "digitz"})
    with pytest.raises(DatasetError, match=r"digitz.*expected one of digits"):
        datasets.load(DatasetSpec.model_construct(name="digitz"))  # type: ignore[arg-type]


def test_digits_are_the_binarised_pixels():
    digits = datasets.load(DatasetSpec(name="digits"))
    from sklearn.datasets import load_digits

    raw = load_digits()
    assert (digits.tokens.dtype, digits.vocab_size, digits.kind) == (np.uint8, 2, "images")
    assert digits.image_shape == (1, 8, 8)
    assert digits.labels is not None
    assert digits.labels.dtype == np.uint8
    np.testing.assert_array_equal(digits.labels, raw.target)
    pictures = digits.tokens.reshape(-1, 8, 8)
    for row, y, x in [(0, 0, 3), (17, 4, 4), (1796, 7, 2)]:
        assert pictures[row, y, x] == (raw.images[row, y, x] >= 8)
    assert pictures.sum() == np.count_nonzero(raw.images >= 8)
    assert {part: len(rows) for part, rows in digits.splits.items()} == {"train": 1617, "test": 180}


def test_patches_are_crops_of_the_photographs_without_repeats():
    patches = datasets.load(DatasetSpec(name="patches"))
    from sklearn.datasets import load_sample_images

    photographs = load_sample_images().images
    assert (patches.vocab_size, patches.length, patches.image_shape) == (256, 192, (3, 8, 8))
    first = patches.tokens[0].reshape(3, 8, 8)
    np.testing.assert_array_equal(first[2], photographs[0][:8, :8, 2])
    np.testing.assert_array_equal(patches.tokens[-1].reshape(3, 8, 8)[1], photographs[1][416:424, 632:640, 1])
    assert len({row.tobytes() for row in patches.tokens}) == len(patches)
    in_order = [
        photograph[y : y + 8, x : x + 8].transpose(2, 0, 1).tobytes()
        for photograph in photographs
        for y in range(0, 424, 8)
        for x in range(0, 640, 8)
    ]
    assert [row.tobytes() for row in patches.tokens] == list(dict.fromkeys(in_order))
    assert patches.report.rows_read == len(in_order)
    assert sum(patches.report.dropped.values()) == len(in_order) - len(patches)


def test_nci_rows_are_canonical_single_molecules_and_every_row_is_accounted_for(nci):
    from rdkit import Chem, RDConfig

    raw = (Path(RDConfig.RDDataDir) / "NCI" / "first_5K.smi").read_text().splitlines()
    report = nci.report
    assert report.rows_read == len(raw)
    assert report.rows_read == report.rows_kept + sum(report.dropped.values())
    assert report.rows_kept == len(nci)
    assert set(report.dropped) == {"not read by RDKit", "longer than 46 tokens"}
    assert "first_5K.smi row 2097: " in report.examples["not read by RDKit"][0]

    texts = nci.decode(nci.tokens)
    assert all("." not in text for text in texts)
    for text in texts[::5]:
        assert Chem.MolToSmiles(Chem.MolFromSmiles(text)) == text
    # The first molecule of the file has no counter-ion and nothing to clean up.
    assert texts[0] == Chem.CanonSmiles(raw[0].split()[0])


def test_nci_rows_have_the_documented_layout(nci):
    bos, eos, pad = (nci.vocab.index(token) for token in ("<bos>", "<eos>", "<pad>"))
    assert (bos, eos, pad) == (0, 1, 2)
    assert (nci.tokens[:, 0] == bos).all()
    assert ((nci.tokens == bos).sum(axis=1) == 1).all()
    assert ((nci.tokens == eos).sum(axis=1) == 1).all()
    after = np.arange(48) > (nci.tokens == eos).argmax(axis=1)[:, None]
    np.testing.assert_array_equal(after, nci.tokens == pad)
    assert nci.vocab.tokens[3:] == tuple(sorted(nci.vocab.tokens[3:]))
    assert set(np.unique(nci.tokens)) == set(range(nci.vocab_size))


def test_golden_digests(nci):
    """Content of two data sets as first released. RDKit is pinned; a new pin may change nci's."""
    digits = datasets.load(DatasetSpec(name="digits"))
    assert digits.digest == DIGITS_DIGEST
    assert nci.digest == NCI_DIGEST


@pytest.mark.slow
def test_second_load_of_molecules_equals_the_first_and_a_damaged_preparation_is_made_again(nci, cache_dir, caplog):
    (prepared,) = (cache_dir / "prepared").iterdir()
    spec = DatasetSpec(name="nci")
    again = datasets.load(spec, cache_dir=cache_dir, progress=False)
    assert again.digest == nci.digest
    assert again.report == nci.report
    prepared.write_bytes(prepared.read_bytes()[:-2000])
    repaired = datasets.load(spec, cache_dir=cache_dir, progress=False)
    assert repaired.digest == nci.digest
    assert "damaged" in caplog.text
    assert [path.name for path in (cache_dir / "prepared").iterdir()] == [prepared.name]


def test_max_length_drops_longer_rows(nci, cache_dir):
    short = datasets.load(DatasetSpec(name="nci", max_length=20), cache_dir=cache_dir, progress=False)
    assert short.length == 20
    expected = [text for text in nci.decode(nci.tokens) if len(_atoms_and_bonds(nci, text)) <= 18]
    assert short.decode(short.tokens) == expected
    with pytest.raises(DatasetError, match="max_length is for molecules"):
        datasets.load(DatasetSpec(name="digits", max_length=20))
    with pytest.raises(DatasetError, match="at least 3"):
        datasets.load(DatasetSpec(name="nci", max_length=2), cache_dir=cache_dir, progress=False)


def _atoms_and_bonds(dataset, text):
    """Tokens by greedy longest match in the vocabulary: another way than the tokeniser's."""
    tokens = []
    while text:
        token = max((known for known in dataset.vocab.tokens if text.startswith(known)), key=len)
        tokens.append(token)
        text = text[len(token) :]
    return tokens


def test_only_molecules_decode():
    digits = datasets.load(DatasetSpec(name="digits"))
    with pytest.raises(DatasetError, match="only molecules"):
        digits.decode(digits.tokens[:1])


def test_tokens_and_labels_are_read_only():
    digits = datasets.load(DatasetSpec(name="digits"))
    part = digits.part("test")
    for array in (digits.tokens, digits.labels, part.tokens, part.labels, digits.splits["train"]):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0  # type: ignore[index]
