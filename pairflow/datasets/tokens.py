"""Bring your own: integers [M, D] from .npy, .npz, Parquet or Zarr, with a vocabulary or its size.

A folder of such files (Zarr excepted, as nobody sees whether one is complete) is read as one array, file after file in
the order of their names, so that rows are added by dropping another file into it: `finished_files` says which are read.
"""

import json
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pairflow.datasets.assembly import LoadedRows
from pairflow.datasets.base import DatasetReport, pack_tokens
from pairflow.datasets.files import Sources, finished_files
from pairflow.datasets.vocabulary import Vocabulary
from pairflow.errors import DatasetError
from pairflow.paths import user_path
from pairflow.spec import DatasetSpec

HOLDOUT = 0.1
COLUMN = "tokens"


def load_tokens(spec: DatasetSpec, sources: Sources) -> LoadedRows:
    """Your rows, all of them, duplicates too; of a file, or of all files in a folder.

    `spec.path` and `spec.vocab_path` are relative to the working folder.

    Raises:
        DatasetError: a file is missing, damaged or of another layout.
    """
    path = user_path(spec.path or "")
    vocab = None if spec.vocab_path is None else read_vocabulary(user_path(spec.vocab_path, "vocab_path"))
    vocab_size = vocab.size if vocab is not None else int(spec.vocab_size or 0)
    tokens = read_folder(path, vocab_size) if _is_plain_folder(path) else read_array(path)
    rows = len(tokens) if tokens.ndim else 0
    return LoadedRows(tokens, vocab_size, DatasetReport(str(path), rows, rows), HOLDOUT, vocab=vocab)


def read_folder(folder: Path, vocab_size: int) -> np.ndarray:
    """The rows [M, D] of all finished files in a folder, in the order of their names; see the module.

    Raises:
        DatasetError: there is no such file, one is damaged or of another layout, or rows differ in length; it names the
            file.
    """
    paths = finished_files(folder, [ending for ending in _READERS if ending != ".zarr"])
    parts: list[np.ndarray] = []
    for path in paths:
        rows = pack_tokens(read_array(path), vocab_size, source=str(path))
        if parts and rows.shape[1] != parts[0].shape[1]:
            raise DatasetError(
                f"{path} has rows of {rows.shape[1]} tokens, {paths[0]} has rows of {parts[0].shape[1]}; all files of "
                "a folder must have one length D"
            )
        parts.append(rows)
    return np.concatenate(parts)


def _is_plain_folder(path: Path) -> bool:
    """Whether it is one of files, and not an array's own (.zarr) or a mistake (rows.npy that is a folder)."""
    return path.is_dir() and path.suffix not in _READERS


def read_array(path: Path) -> np.ndarray:
    """The array in a .npy, .npz, .parquet or .zarr; its values are not checked here.

    Raises:
        DatasetError: there is none, it is damaged, or its layout is none of those described at the readers.
    """
    if not path.exists():
        beside = "" if path.is_absolute() else "; the path is relative to the folder in which this runs"
        raise DatasetError(f"{path} does not exist{beside}")
    reader = _READERS.get(path.suffix)
    if reader is None:
        raise DatasetError(f"{path} ends in {path.suffix!r}, expected one of {', '.join(_READERS)}")
    if path.is_dir() and path.suffix != ".zarr":
        raise DatasetError(f"{path} is a folder, expected a file")
    return reader(path)


def _damaged(path: Path, error: Exception) -> DatasetError:
    detail = str(error).strip() or type(error).__name__
    return DatasetError(f"{path} cannot be read as {path.suffix}: {detail}; write the file again")


def _read_npy(path: Path) -> np.ndarray:
    """NumPy's own format. Object arrays are refused: they would have to be unpickled, which can run code."""
    try:
        with path.open("rb") as stream:
            array = np.load(stream, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise _damaged(path, error) from error
    if not isinstance(array, np.ndarray):
        raise DatasetError(f"{path} is an archive of arrays; name it .npz")
    return array


def _read_npz(path: Path) -> np.ndarray:
    """An archive of one array, or with one named "tokens"."""
    try:
        # np.load leaves a file open that it opened and found damaged, so it is given one.
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            names = archive.files
            name = COLUMN if COLUMN in names else next(iter(names), None)
            if name is None or (len(names) > 1 and name != COLUMN):
                raise DatasetError(f"{path} holds arrays {names}, expected one alone or one named '{COLUMN}'")
            return archive[name]
    except (OSError, ValueError, EOFError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise _damaged(path, error) from error


def _read_parquet(path: Path) -> np.ndarray:
    """A list column "tokens" with lists of one length, or a table of integer columns, one a position."""
    import pyarrow as pa
    import pyarrow.parquet as pq  # loaded only for your own Parquet files

    try:
        # Without Arrow's thread pools: with pyarrow 25 they now and then abort a short process as it exits.
        with pq.ParquetFile(path, pre_buffer=False) as file:
            table = file.read(use_threads=False)
    except (OSError, pa.ArrowException) as error:
        raise _damaged(path, error) from error
    is_list = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    if COLUMN in table.column_names and any(check(table.schema.field(COLUMN).type) for check in is_list):
        return _read_lists(table.column(COLUMN), path)
    if bad := [field.name for field in table.schema if not pa.types.is_integer(field.type)]:
        raise DatasetError(
            f"{path}: columns {bad[:5]} are no integers; expected a list column '{COLUMN}' or integer columns only"
        )
    for name in table.column_names:
        if table.column(name).null_count:
            raise DatasetError(f"{path}: column '{name}' has missing values; every position needs a token")
    columns = [column.to_numpy() for column in table.columns]
    return np.stack(columns, axis=1) if columns else np.empty((table.num_rows, 0), dtype=np.uint8)


def _read_lists(column: Any, path: Path) -> np.ndarray:
    """Rows [M, D] of a list column (pyarrow.ChunkedArray).

    Raises:
        DatasetError: a row or a token is missing, the rows differ in length, or it is no list of numbers.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if column.null_count:
        raise DatasetError(f"{path}: {column.null_count} rows of '{COLUMN}' are missing; drop them or fill them")
    lengths = pc.list_value_length(column).to_numpy()
    if lengths.size and (lengths != lengths[0]).any():
        row = int(np.argmax(lengths != lengths[0]))
        raise DatasetError(
            f"{path}: row {row} has {lengths[row]} tokens, row 0 has {lengths[0]}; pad all rows to one length D"
        )
    values = pc.list_flatten(column)
    if values.null_count:
        raise DatasetError(f"{path}: {values.null_count} tokens are missing; every position needs one")
    if not (pa.types.is_integer(values.type) or pa.types.is_floating(values.type)):
        raise DatasetError(f"{path}: '{COLUMN}' holds lists of {values.type}, expected integers")
    return values.to_numpy().reshape(len(column), int(lengths[0]) if lengths.size else 0)


def _read_zarr(path: Path) -> np.ndarray:
    """A Zarr array of format 2 or 3.

    This is the one place where `pairflow` touches zarr, and only for your own Zarr files.
    """
    import zarr

    try:
        array = zarr.open_array(path, mode="r")
        return np.asarray(array[...])
    except (OSError, ValueError, KeyError, RuntimeError, TypeError) as error:
        raise _damaged(path, error) from error


_READERS: dict[str, Callable[[Path], np.ndarray]] = {
    ".npy": _read_npy,
    ".npz": _read_npz,
    ".parquet": _read_parquet,
    ".zarr": _read_zarr,
}


def read_vocabulary(path: Path) -> Vocabulary:
    """A JSON list of at least two different strings, id 0 first.

    Raises:
        DatasetError: the file is missing, is no such list, or repeats a token.
    """
    try:
        tokens = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DatasetError(f"the vocabulary {path} does not exist") from None
    except (OSError, ValueError) as error:
        raise DatasetError(f"the vocabulary {path} cannot be read as JSON: {error}") from error
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens) or len(tokens) < 2:
        raise DatasetError(f"the vocabulary {path} must be a JSON list of at least two strings")
    try:
        return Vocabulary(tuple(tokens))
    except DatasetError as error:
        raise DatasetError(f"{path}: {error}") from None
