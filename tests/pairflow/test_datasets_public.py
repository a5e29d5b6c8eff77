"""Published images from hand-made files in the published layouts, and what is said where a file is missing."""

import gzip
import io
import struct
import tarfile

import numpy as np
import pytest
import requests

from pairflow import datasets
from pairflow.errors import DatasetError
from pairflow.spec import DatasetSpec


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture
def load(tmp_path, cache_dir, monkeypatch):
    """Loads from `tmp_path`; what would be downloaded is an error that names the file."""

    def refuse(url, **_):
        raise requests.ConnectionError(f"no network for {url}")

    monkeypatch.setattr("requests.get", refuse)

    def load(name, **fields):
        return datasets.load(DatasetSpec(name=name, **fields), data_dir=tmp_path, cache_dir=cache_dir, progress=False)

    return load


def idx(array):
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(np.uint8).tobytes()


def _compressed(data):
    """Without the time, which would be in the test's name."""
    return gzip.compress(data, mtime=0)


def write_mnist(folder, num_train=6, num_test=3, compress=True):
    draws = np.random.Generator(np.random.PCG64(0))
    written = {}
    for part, count in (("train", num_train), ("t10k", num_test)):
        written[part] = images, labels = draws.integers(0, 256, (count, 28, 28)), draws.integers(0, 10, count)
        for name, array in ((f"{part}-images-idx3-ubyte", images), (f"{part}-labels-idx1-ubyte", labels)):
            data = idx(array)
            (folder / f"{name}{'.gz' * compress}").write_bytes(gzip.compress(data) if compress else data)
    return written


@pytest.mark.parametrize("compress", [True, False])
def test_mnist_is_binarised_and_split_as_published(tmp_path, load, compress):
    written = write_mnist(tmp_path, compress=compress)
    mnist = load("mnist-binary")
    assert (mnist.tokens.shape, mnist.vocab_size, mnist.image_shape) == ((9, 784), 2, (1, 28, 28))
    for part, name in (("train", "train"), ("test", "t10k")):
        images, labels = written[name]
        expected = [[int(pixel / 255 >= 0.5) for pixel in image] for image in images.reshape(-1, 784)]
        np.testing.assert_array_equal(mnist.part(part).tokens, expected)
        np.testing.assert_array_equal(mnist.part(part).labels, labels)


def test_published_splits_shrink_in_proportion_and_a_stated_holdout_pools_them(tmp_path, load):
    write_mnist(tmp_path, 60, 20)
    small = load("mnist-binary", max_rows=8)
    assert {part: len(rows) for part, rows in small.splits.items()} == {"train": 6, "test": 2}
    pooled = load("mnist-binary", holdout=0.5)
    assert {part: len(rows) for part, rows in pooled.splits.items()} == {"train": 40, "test": 40}
    assert pooled.digest == load("mnist-binary").digest
    with pytest.raises(DatasetError, match="too few to split into 1 for training and 0 held out"):
        load("mnist-binary", max_rows=1)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train-images-idx3-ubyte.gz", b"not gzip", "is damaged or cut short"),
        ("train-images-idx3-ubyte.gz", _compressed(idx(np.zeros((6, 28, 28))))[:-20], "is damaged or cut short"),
        ("train-images-idx3-ubyte.gz", _compressed(idx(np.zeros((6, 28, 28)))[:-1]), "it holds 4703"),
        ("train-images-idx3-ubyte.gz", _compressed(b""), "is no idx file of 3 dimension"),
        ("train-images-idx3-ubyte.gz", _compressed(idx(np.zeros(6))), "0x00000801, expected 0x00000803"),
        ("train-images-idx3-ubyte.gz", _compressed(idx(np.zeros((6, 8, 8)))), r"expected \(28, 28\)"),
        ("train-images-idx3-ubyte.gz", _compressed(idx(np.zeros((5, 28, 28)))), "has 5 images, but .* 6 labels"),
        ("t10k-labels-idx1-ubyte.gz", _compressed(idx(np.array([1, 10, 2]))), "label 10 of row 1"),
    ],
)
def test_damaged_mnist_files(tmp_path, load, name, content, message):
    write_mnist(tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DatasetError, match=message) as caught:
        load("mnist-binary")
    assert str(tmp_path / name) in str(caught.value)


def test_missing_files_say_what_to_put_where(load):
    for name, file, url in [
        ("mnist-binary", "train-images-idx3-ubyte.gz", "https://ossci-datasets.s3.amazonaws.com/mnist/"),
        ("cifar-10", "cifar-10-binary.tar.gz", "https://www.cs.toronto.edu/~kriz/"),
        ("qm9", "dsgdb9nsd.xyz.tar.bz2", "https://ndownloader.figshare.com/files/3195389"),
        ("zinc-250k", "250k_rndm_zinc_drugs_clean_3.csv", "https://raw.githubusercontent.com/aspuru-guzik-group/"),
    ]:
        with pytest.raises(DatasetError) as caught:
            load(name)
        assert url in str(caught.value)
        assert f"as {file} and set PAIRFLOW_DATA_DIR" in str(caught.value)


def test_data_folder_that_is_none(tmp_path):
    with pytest.raises(DatasetError, match="nowhere does not exist; correct or unset PAIRFLOW_DATA_DIR"):
        datasets.load(DatasetSpec(name="qm9"), data_dir=tmp_path / "nowhere", cache_dir=tmp_path)


def test_folder_in_place_of_a_file(tmp_path, load):
    (tmp_path / "qm9.csv.gz").mkdir()
    with pytest.raises(DatasetError, match=r"qm9\.csv\.gz is a folder, expected a file"):
        load("qm9")


def test_environment_is_read_when_called(tmp_path, monkeypatch):
    (tmp_path / "qm9.csv").write_text("smiles\n" + "CC\n" * 20)
    monkeypatch.setenv("PAIRFLOW_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("PAIRFLOW_HOME", str(tmp_path / "home"))
    loaded = datasets.load(DatasetSpec(name="qm9"))
    assert loaded.report.source == str(tmp_path / "qm9.csv")
    assert list((tmp_path / "home" / "downloads" / "prepared").iterdir())


def records(draws, count):
    return np.concatenate([draws.integers(0, 10, (count, 1)), draws.integers(0, 256, (count, 3072))], axis=1).astype(
        np.uint8
    )


@pytest.fixture
def cifar():
    """Six files of records as published, shorter."""
    draws = np.random.Generator(np.random.PCG64(1))
    return {name: records(draws, 4) for name in [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]}


def write_archive(path, cifar):
    with tarfile.open(path, "w:gz") as archive:
        for name, rows in reversed(cifar.items()):
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = rows.size
            archive.addfile(member, io.BytesIO(rows.tobytes()))


def write_folder(path, cifar):
    (path / "cifar-10-batches-bin").mkdir()
    for name, rows in cifar.items():
        (path / "cifar-10-batches-bin" / name).write_bytes(rows.tobytes())


def write_cifar_parts(path):
    draws = np.random.Generator(np.random.PCG64(2))
    train, test = records(draws, 5), records(draws, 2)
    (path / "cifar10_train_10k.bin.gz").write_bytes(gzip.compress(train.tobytes()))
    (path / "cifar10_test_1k.bin.gz").write_bytes(gzip.compress(test.tobytes()))
    return train, test


@pytest.mark.parametrize("form", ["archive", "folder"])
def test_cifar_as_published_comes_before_a_part(tmp_path, load, cifar, form):
    write_cifar_parts(tmp_path)
    if form == "archive":
        write_archive(tmp_path / "cifar-10-binary.tar.gz", cifar)
    else:
        write_folder(tmp_path, cifar)
    loaded = load("cifar-10")
    assert (loaded.vocab_size, loaded.image_shape, loaded.report.notes) == (256, (3, 32, 32), ())
    rows = np.concatenate(list(cifar.values()))
    np.testing.assert_array_equal(loaded.tokens, rows[:, 1:])
    np.testing.assert_array_equal(loaded.labels, rows[:, 0])
    assert loaded.splits["test"].tolist() == [20, 21, 22, 23]


def test_part_of_cifar_is_used_and_said(tmp_path, load, caplog):
    train, test = write_cifar_parts(tmp_path)
    loaded = load("cifar-10")
    np.testing.assert_array_equal(loaded.part("train").tokens, train[:, 1:])
    np.testing.assert_array_equal(loaded.part("test").labels, test[:, 0])
    assert "only a part of CIFAR-10" in loaded.report.notes[0]
    assert "only a part of CIFAR-10" in caplog.text


def test_damaged_cifar(tmp_path, load, cifar):
    path = tmp_path / "cifar-10-binary.tar.gz"
    write_archive(path, cifar)
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(DatasetError, match=r"cifar-10-binary\.tar\.gz is damaged"):
        load("cifar-10")
    write_archive(path, {name: rows for name, rows in cifar.items() if name != "data_batch_3.bin"})
    with pytest.raises(DatasetError, match=r"has no data_batch_3\.bin"):
        load("cifar-10")
    path.unlink()
    write_folder(tmp_path, cifar)
    batch = tmp_path / "cifar-10-batches-bin" / "data_batch_2.bin"
    batch.write_bytes(batch.read_bytes()[:-1])
    with pytest.raises(DatasetError, match=r"data_batch_2\.bin is damaged or cut short: 12291 bytes"):
        load("cifar-10")
    batch.unlink()
    with pytest.raises(DatasetError, match=r"data_batch_2\.bin does not exist"):
        load("cifar-10")
