"""The published binary layouts of MNIST (idx) and CIFAR-10 (records), read with every size checked."""

import struct
import tarfile
from pathlib import Path

import numpy as np

from pairflow.datasets.files import read_bytes, reading
from pairflow.errors import DatasetError

_IDX_UBYTE = 0x08
CIFAR_SHAPE = (3, 32, 32)
_CIFAR_RECORD = 1 + 3 * 32 * 32


def read_idx(path: Path, num_dims: int) -> np.ndarray:
    """An idx file of unsigned bytes, as `num_dims`-dimensional uint8 array.

    Layout (http://yann.lecun.com/exdb/mnist): two zero bytes, the type, the number of dimensions, each size as
    big-endian 32-bit integer, the values.

    Raises:
        DatasetError: the file cannot be read, has another magic number, or not as many bytes as its header says.
    """
    data = read_bytes(path)
    start = 4 + 4 * num_dims
    expected = bytes([0, 0, _IDX_UBYTE, num_dims])
    if data[:4] != expected or len(data) < start:
        raise DatasetError(
            f"{path} is no idx file of {num_dims} dimension(s): it starts with 0x{data[:4].hex()}, "
            f"expected 0x{expected.hex()}"
        )
    shape = struct.unpack(f">{num_dims}I", data[4:start])
    values = np.frombuffer(data, dtype=np.uint8, offset=start)
    if values.size != np.prod(shape, dtype=np.int64):
        raise DatasetError(
            f"{path} is damaged or cut short: its header says {' × '.join(map(str, shape))} bytes, "
            f"it holds {values.size}"
        )
    return values.reshape(shape)


def read_mnist_part(images_path: Path, labels_path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images [M, 28, 28] and labels [M] of one part, uint8.

    Raises:
        DatasetError: a file is damaged, the images are not 28 × 28, or there is not one label 0 … 9 for each.
    """
    images, labels = read_idx(images_path, 3), read_idx(labels_path, 1)
    if images.shape[1:] != (28, 28):
        raise DatasetError(f"{images_path} has images of {images.shape[1:]} pixels, expected (28, 28)")
    if len(images) != len(labels):
        raise DatasetError(f"{images_path} has {len(images)} images, but {labels_path} {len(labels)} labels")
    _check_labels(labels, labels_path)
    return images, labels


def read_cifar_records(data: bytes, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Pixels [M, 3072], channel-major, and labels [M] from records of 1 + 3,072 bytes, uint8.

    Raises:
        DatasetError: the size is no multiple of a record's, or a label is over 9.
    """
    if len(data) == 0 or len(data) % _CIFAR_RECORD:
        raise DatasetError(
            f"{path} is damaged or cut short: {len(data)} bytes are no whole number of records of {_CIFAR_RECORD} bytes"
        )
    records = np.frombuffer(data, dtype=np.uint8).reshape(-1, _CIFAR_RECORD)
    _check_labels(records[:, 0], path)
    return records[:, 1:], records[:, 0]


def read_cifar_archive(path: Path) -> dict[str, bytes]:
    """The .bin files of the published archive by file name; nothing is unpacked to disk.

    Raises:
        DatasetError: the archive cannot be read or is damaged.
    """
    with reading(path), tarfile.open(path, "r:gz") as archive:
        members = [member for member in archive if member.isfile() and member.name.endswith(".bin")]
        return {
            Path(member.name).name: stream.read()
            for member in members
            if (stream := archive.extractfile(member)) is not None
        }


def _check_labels(labels: np.ndarray, path: Path) -> None:
    if labels.size and labels.max() > 9:
        row = int(labels.argmax())
        raise DatasetError(f"{path}: label {labels[row]} of row {row} is none of 0 … 9; the file is damaged")
