"""Arrays of integers [M, D] from .npy, .npz, Parquet, Arrow and Zarr files, and what else such a file says of them.

An array rarely comes alone: a table has an index, a column may be nullable or encoded, another program may have stored
a mask, a fill value or a scale beside it. Each is used as it is meant, or refused with a word about it.
"""

import math
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pairflow.datasets.parquet_files import read_arrow, read_parquet
from pairflow.errors import DatasetError

COLUMN = "tokens"
FOLDERS = (".zarr",)
"""Endings of arrays that are folders."""

_SPARSE = {"indices", "indptr", "shape", "format"}  # what scipy.sparse.save_npz writes
_SCALES = {"scale_factor": 1, "add_offset": 0}  # of the CF conventions, which xarray and netCDF follow
_FILLERS = ("_FillValue", "missing_value")


def ending(path: Path) -> str:
    """The ending by which a file's reader is found: .NPY is .npy."""
    return path.suffix.lower()


def read_array(path: Path, column: str | None = None) -> np.ndarray:
    """The array in a .npy, .npz, .parquet, .arrow, .feather or .zarr; its values are not checked here.

    Args:
        path: of the file.
        column: of several in it, the one to take; "tokens" by default, or the only one.

    Raises:
        DatasetError: there is none, it is damaged, or its layout is none of those described at the readers.
    """
    if not path.exists():
        beside = "" if path.is_absolute() else "; the path is relative to the folder in which this runs"
        raise DatasetError(f"{path} does not exist{beside}")
    reader = READERS.get(ending(path))
    if reader is None:
        raise DatasetError(f"{path} ends in {path.suffix!r}, expected one of {', '.join(READERS)}")
    if path.is_dir() and ending(path) not in FOLDERS:
        raise DatasetError(f"{path} is a folder, expected a file")
    try:
        return reader(path, column)
    except DatasetError:
        raise
    except Exception as error:  # damaged bytes make numpy, zipfile, pyarrow and zarr raise all kinds
        detail = str(error).strip() or type(error).__name__
        raise DatasetError(f"{path} cannot be read as {path.suffix}: {detail[:400]}; write the file again") from error


def _read_npy(path: Path, column: str | None) -> np.ndarray:
    """NumPy's own format. Object arrays are refused: they would have to be unpickled, which can run code."""
    if column is not None:
        raise DatasetError(f"{path} is one array and has no column '{column}'; leave the column out")
    with path.open("rb") as stream:
        _check_size(stream, path)
        array = np.load(stream, allow_pickle=False)
    if not isinstance(array, np.ndarray):
        array.close()
        raise DatasetError(f"{path} is an archive of arrays; name it .npz")
    return array


def _check_size(stream: Any, path: Path) -> None:
    """A header may promise more than the file holds: numpy would ask for all of that memory first."""
    if stream.read(6) == b"\x93NUMPY":
        stream.seek(0)
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(stream)
        there = os.fstat(stream.fileno()).st_size - stream.tell()
        if not dtype.hasobject and math.prod(shape) * dtype.itemsize > there:
            raise DatasetError(
                f"{path} cannot be read as .npy: its header says {list(shape)} {dtype}, but only {there:,} bytes "
                "follow; write the file again"
            )
    elif not zipfile.is_zipfile(stream):
        raise DatasetError(f"{path} cannot be read as .npy: it does not begin as one; write it with numpy.save")
    stream.seek(0)


def _read_npz(path: Path, column: str | None) -> np.ndarray:
    """An archive of one array, or with one named "tokens"."""
    # np.load leaves a file open that it opened and found damaged, so it is given one.
    with path.open("rb") as stream:
        if not zipfile.is_zipfile(stream):
            raise DatasetError(f"{path} cannot be read as .npz: it is no archive of arrays; write the file again")
        stream.seek(0)
        with np.load(stream, allow_pickle=False) as archive:
            names = archive.files
            if set(names) > _SPARSE:
                raise DatasetError(f"{path} is a sparse matrix of SciPy; save matrix.toarray() with numpy.savez")
            wanted = column or COLUMN
            name = wanted if wanted in names or column is not None else next(iter(names), None)
            if name not in names or (len(names) > 1 and name != wanted):
                other = "" if column is not None else " alone"
                raise DatasetError(f"{path} holds arrays {names}, expected one{other} or one named '{wanted}'")
            array = archive[name]
            if "mask" in names and name != "mask" and archive["mask"].any():
                raise DatasetError(
                    f"{path} holds a 'mask' beside '{name}', and a part of it is set: every position needs a token; "
                    f"fill what is masked, and save '{name}' without a mask"
                )
            return array


def _read_parquet(path: Path, column: str | None) -> np.ndarray:
    return read_parquet(path, column or COLUMN, required=column is not None)


def _read_arrow(path: Path, column: str | None) -> np.ndarray:
    return read_arrow(path, column or COLUMN, required=column is not None)


def _read_zarr(path: Path, column: str | None) -> np.ndarray:
    """A Zarr array of format 2 or 3, or a group with one of the column's name.

    This is the one place where `pairflow` touches zarr, and only for your own Zarr files.
    """
    import zarr

    found = zarr.open(path, mode="r")
    if isinstance(found, zarr.Group):
        names = sorted(name for name, _ in found.arrays())
        wanted = column or COLUMN
        if wanted not in names:
            raise DatasetError(
                f"{path} cannot be read as one array: it is a group with arrays {names}; expected an array, or a group "
                f"with one named '{wanted}'"
            )
        found = found[wanted]
    elif column is not None:
        raise DatasetError(f"{path} is one array and has no column '{column}'; leave the column out")
    if not isinstance(found, zarr.Array):
        raise DatasetError(f"{path} cannot be read as .zarr: no array is in it")
    _check_memory(found, path)
    array = np.asarray(found[...])
    _check_attributes(array, dict(found.attrs), path)
    return array


def _check_memory(array: Any, path: Path) -> None:
    """A few bytes of JSON may promise any shape; what no chunk holds would be made up of fill values."""
    wanted = math.prod(array.shape) * array.dtype.itemsize
    if hasattr(os, "sysconf") and wanted > (memory := os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")):
        raise DatasetError(
            f"{path} says that it holds {list(array.shape)} {array.dtype}, {wanted / 2**30:,.0f} GiB; this machine has "
            f"{memory / 2**30:,.0f} GiB of memory"
        )


def _check_attributes(array: np.ndarray, attributes: dict[str, Any], path: Path) -> None:
    """Numbers that stand for others, or for none, by what is written beside them."""
    if scaled := [name for name, neutral in _SCALES.items() if attributes.get(name, neutral) != neutral]:
        raise DatasetError(
            f"{path} is stored packed ({', '.join(scaled)} among its attributes), so its numbers are no tokens; write "
            "the unpacked integers"
        )
    for name in _FILLERS:
        filler = attributes.get(name)
        if isinstance(filler, int | float) and array.dtype.kind in "iu" and (missing := int((array == filler).sum())):
            raise DatasetError(
                f"{path} has {missing:,} positions of {filler}, which its attribute {name} calls missing; every "
                "position needs a token"
            )


READERS: dict[str, Callable[[Path, str | None], np.ndarray]] = {
    ".npy": _read_npy,
    ".npz": _read_npz,
    ".parquet": _read_parquet,
    ".arrow": _read_arrow,
    ".feather": _read_arrow,
    ".zarr": _read_zarr,
}
"""By ending."""
