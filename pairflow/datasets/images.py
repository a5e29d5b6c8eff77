"""Images as rows of pixel values, channel-major: digits, patches, mnist-binary and cifar-10."""

import importlib.metadata
from pathlib import Path

import numpy as np

from pairflow.datasets.assembly import LoadedRows
from pairflow.datasets.base import DatasetReport
from pairflow.datasets.download import RemoteFile
from pairflow.datasets.files import Sources, packaged, read_bytes
from pairflow.datasets.image_files import CIFAR_SHAPE, read_cifar_archive, read_cifar_records, read_mnist_part
from pairflow.datasets.preparation import Whole
from pairflow.errors import DatasetError
from pairflow.spec import DatasetSpec

HOLDOUT = 0.1
PATCH_SIZE = 8
_DIGITS, _PATCHES = "scikit-learn, load_digits", "scikit-learn, load_sample_images"

_MNIST_URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"
# Checksums as torchvision lists them (torchvision/datasets/mnist.py).
MNIST_FILES = tuple(
    RemoteFile(name, _MNIST_URL + name, f"md5:{md5}")
    for name, md5 in (
        ("train-images-idx3-ubyte.gz", "f68b3c2dcbeaaa9fbdd348bbdeb94873"),
        ("train-labels-idx1-ubyte.gz", "d53e105ee54ea40749a09fcbcd1e9432"),
        ("t10k-images-idx3-ubyte.gz", "9fb629c4189551a2d022fa330f9573f3"),
        ("t10k-labels-idx1-ubyte.gz", "ec29112dd5afa0611ce80d1b7f02629c"),
    )
)
# Checksum as the data set's own page lists it.
CIFAR_ARCHIVE = RemoteFile(
    name="cifar-10-binary.tar.gz",
    url="https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    checksum="md5:c32a1d4ab5d03f1284b67883e8d87530",
)
_CIFAR_TRAIN = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
_CIFAR_TEST = "test_batch.bin"
_CIFAR_PARTS = ("cifar10_train_10k.bin.gz", "cifar10_test_1k.bin.gz")


def digits(spec: DatasetSpec, sources: Sources) -> Whole:
    """scikit-learn's 1,797 digits, 8 × 8 pixels of 0 … 16; a pixel is 1 from half of the range on (8)."""
    return Whole(packaged("digits"), _load_digits, "digits/1", _DIGITS)


def _load_digits() -> LoadedRows:
    from sklearn import datasets

    digits = datasets.load_digits()
    tokens = (digits.data >= 8).astype(np.uint8)
    report = DatasetReport(_DIGITS, len(tokens), len(tokens))
    return LoadedRows(tokens, 2, report, HOLDOUT, image_shape=(1, 8, 8), labels=digits.target)


def patches(spec: DatasetSpec, sources: Sources) -> Whole:
    """8 × 8 crops of scikit-learn's two photographs on a grid without overlap, in reading order.

    A crop that equals an earlier one (evenly white sky) is dropped and counted.
    """
    decoder = importlib.metadata.version("pillow")  # pixels of a JPEG file are as its decoder rounds them
    return Whole(packaged("patches"), _load_patches, f"patches/1, pillow {decoder}", _PATCHES)


def _load_patches() -> LoadedRows:
    from sklearn import datasets

    photographs = datasets.load_sample_images()
    crops = np.concatenate([_grid(image) for image in photographs.images])
    _, first = np.unique(crops, axis=0, return_index=True)
    tokens = crops[np.sort(first)]
    repeats = len(crops) - len(tokens)
    report = DatasetReport(
        source=_PATCHES,
        rows_read=len(crops),
        rows_kept=len(tokens),
        dropped={"equal to an earlier crop": repeats} if repeats else {},
    )
    return LoadedRows(tokens, 256, report, HOLDOUT, image_shape=(3, PATCH_SIZE, PATCH_SIZE))


def _grid(image: np.ndarray) -> np.ndarray:
    """Crops [N, 3·8·8], channel-major, of an image [H, W, 3]; what is left at the right and bottom edges is cut."""
    rows, columns = image.shape[0] // PATCH_SIZE, image.shape[1] // PATCH_SIZE
    cut = image[: rows * PATCH_SIZE, : columns * PATCH_SIZE]
    tiles = cut.reshape(rows, PATCH_SIZE, columns, PATCH_SIZE, 3)
    return tiles.transpose(0, 2, 4, 1, 3).reshape(rows * columns, -1)


def mnist(spec: DatasetSpec, sources: Sources) -> Whole:
    """MNIST with its published split; a pixel is 1 from half of the range on (128 of 255)."""
    paths = [sources.find_or_fetch(file, file.name.removesuffix(".gz")) for file in MNIST_FILES]
    return Whole(tuple(paths), lambda: _load_mnist(paths), "mnist/1", ", ".join(map(str, paths)))


def _load_mnist(paths: list[Path]) -> LoadedRows:
    train, train_labels = read_mnist_part(paths[0], paths[1])
    test, test_labels = read_mnist_part(paths[2], paths[3])
    tokens = (np.concatenate([train, test]) >= 128).astype(np.uint8)
    report = DatasetReport(", ".join(map(str, paths)), len(tokens), len(tokens))
    return LoadedRows(
        tokens=tokens.reshape(len(tokens), -1),
        vocab_size=2,
        report=report,
        holdout=HOLDOUT,
        image_shape=(1, 28, 28),
        labels=np.concatenate([train_labels, test_labels]),
        num_train=len(train),
    )


def cifar(spec: DatasetSpec, sources: Sources) -> Whole:
    """CIFAR-10 with its published split: a local folder or archive as published, else a local part, else a download."""
    batches = sources.data_dir and sources.data_dir / "cifar-10-batches-bin"
    if batches and batches.is_dir():
        files = [batches / name for name in (*_CIFAR_TRAIN, _CIFAR_TEST)]
        return Whole(tuple(files), lambda: _load_cifar_files(files, str(batches)), "cifar/1", str(batches))
    archive = sources.find(CIFAR_ARCHIVE.name)
    train_part, test_part = (sources.find(name) for name in _CIFAR_PARTS)
    if archive is None and train_part is not None and test_part is not None:
        note = (
            f"only a part of CIFAR-10: {train_part.name} and {test_part.name} in place of the 50,000 + 10,000 "
            "images as published"
        )
        parts, said = [train_part, test_part], f"{train_part}, {test_part}"
        return Whole(tuple(parts), lambda: _load_cifar_files(parts, said, (note,)), "cifar/1", said, (note,))
    path = archive or sources.find_or_fetch(CIFAR_ARCHIVE)
    return Whole((path,), lambda: _load_cifar_archive(path), "cifar/1", str(path))


def _load_cifar_files(files: list[Path], source: str, notes: tuple[str, ...] = ()) -> LoadedRows:
    """Of files of records, the last of which is the test part."""
    *train, test = [read_cifar_records(read_bytes(path), path) for path in files]
    return _cifar_rows(train, test, source, notes)


def _load_cifar_archive(path: Path) -> LoadedRows:
    files = read_cifar_archive(path)
    if missing := [name for name in (*_CIFAR_TRAIN, _CIFAR_TEST) if name not in files]:
        raise DatasetError(f"{path} has no {', '.join(missing)}; replace it with a fresh copy of {CIFAR_ARCHIVE.url}")
    return _cifar_rows(
        [read_cifar_records(files[name], path / name) for name in _CIFAR_TRAIN],
        read_cifar_records(files[_CIFAR_TEST], path / _CIFAR_TEST),
        str(path),
    )


def _cifar_rows(
    train: list[tuple[np.ndarray, np.ndarray]],
    test: tuple[np.ndarray, np.ndarray],
    source: str,
    notes: tuple[str, ...] = (),
) -> LoadedRows:
    tokens = np.concatenate([*(pixels for pixels, _ in train), test[0]])
    return LoadedRows(
        tokens=tokens,
        vocab_size=256,
        report=DatasetReport(source, len(tokens), len(tokens), notes=notes),
        holdout=HOLDOUT,
        image_shape=CIFAR_SHAPE,
        labels=np.concatenate([*(labels for _, labels in train), test[1]]),
        num_train=len(tokens) - len(test[0]),
    )
