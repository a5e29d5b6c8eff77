"""The real published data, where PAIRFLOW_DATA_DIR has a copy, against plain readings of the files."""

import gzip
import os
from pathlib import Path

import numpy as np
import pytest

from pairflow import datasets
from pairflow.spec import DatasetSpec


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture
def real(cache_dir):
    """Loads from PAIRFLOW_DATA_DIR; skips where the file is not there."""
    folder = os.environ.get("PAIRFLOW_DATA_DIR")
    if not folder:
        pytest.skip("PAIRFLOW_DATA_DIR is not set: no local copies of public data")

    def load(name, *files, **fields):
        paths = [Path(folder) / file for file in files]
        if missing := [path.name for path in paths if not path.is_file()]:
            pytest.skip(f"PAIRFLOW_DATA_DIR has no {', '.join(missing)}")
        spec = DatasetSpec(name=name, **fields)
        return datasets.load(spec, data_dir=Path(folder), cache_dir=cache_dir, progress=False), paths

    return load


@pytest.mark.slow
def test_real_qm9(real):
    from rdkit import Chem, rdBase

    qm9, (path,) = real("qm9", "qm9.csv.gz")
    published = gzip.decompress(path.read_bytes()).decode().split()[1:]
    texts = qm9.decode(qm9.tokens)
    assert qm9.vocab_size == 43  # as in the paper
    assert qm9.length == 32
    assert qm9.report.rows_read == len(published)
    kept = set(texts)
    refused = [smiles for smiles in published if smiles not in kept]
    assert texts == [smiles for smiles in published if smiles in kept]
    assert len(refused) == sum(qm9.report.dropped.values())
    with rdBase.BlockLogs():
        assert all(Chem.MolFromSmiles(smiles) is None for smiles in refused)
    assert len(qm9.splits["test"]) == round(0.05 * len(qm9))


def test_real_zinc(real):
    files = ("zinc250k_valid.smi.gz", "zinc250k_test.smi.gz")
    zinc, paths = real("zinc-250k", *files)
    if zinc.report.notes:  # the parts alone
        published = [gzip.decompress(path.read_bytes()).decode().split() for path in paths]
        assert zinc.decode(zinc.tokens) == published[0] + published[1]
        assert (len(zinc.part("train")), zinc.length) == (len(published[0]), 74)


def test_real_mnist(real):
    mnist, (path,) = real("mnist-binary", "t10k-images-idx3-ubyte.gz")
    pixels = np.frombuffer(gzip.decompress(path.read_bytes())[16:], dtype=np.uint8)
    assert (len(mnist.part("train")), len(mnist.part("test"))) == (60_000, 10_000)
    assert mnist.part("test").tokens.sum() == np.count_nonzero(pixels > 127)
    assert np.bincount(mnist.part("test").labels)[0] == 980  # zeros among the published test labels


def test_real_cifar(real):
    cifar, (path,) = real("cifar-10", "cifar10_test_1k.bin.gz", max_rows=550)
    data = gzip.decompress(path.read_bytes())
    assert cifar.length == 3072
    if cifar.report.notes:
        test = cifar.part("test")
        assert len(test) == 50
        published = {data[start + 1 : start + 3073] for start in range(0, len(data), 3073)}
        assert all(row.tobytes() in published for row in test.tokens)
