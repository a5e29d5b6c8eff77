"""Bring your own: integers [M, D] from .npy, .npz, Parquet or Zarr, with a vocabulary or its size.

A folder of such files (Zarr excepted, as nobody sees whether one is complete) is read as one array, file after file in
the order of their names, so that rows are added by dropping another file into it: `finished_files` says which are read.
A folder that is itself called .parquet, as Spark and Dask write one, is a folder of Parquet files.
"""

import json
from pathlib import Path

import numpy as np

from pairflow.datasets.array_files import FOLDERS, READERS, ending, read_array
from pairflow.datasets.assembly import LoadedRows
from pairflow.datasets.base import DatasetReport, pack_tokens
from pairflow.datasets.files import Sources, finished_files
from pairflow.datasets.preparation import Whole
from pairflow.datasets.remote import is_remote, local_path, source_name
from pairflow.datasets.vocabulary import Vocabulary
from pairflow.errors import DatasetError
from pairflow.paths import user_path
from pairflow.spec import DatasetSpec

HOLDOUT = 0.1


def own(spec: DatasetSpec, sources: Sources) -> Whole:
    """Your rows, all of them, duplicates too; of a file, or of all files in a folder.

    `spec.path` and `spec.vocab_path` are relative to the working folder.

    Raises:
        DatasetError: a file is missing, damaged or of another layout; as soon as it is read.
    """
    path = local_path(spec.path or "", sources.cache_dir)
    source = source_name(spec.path or "")
    if is_remote(source) and not path.exists():
        raise DatasetError(
            f"{source} is a pattern of several folders, expected a file, a folder or files of one folder; copy them "
            "into one"
        )
    vocab_path = None if spec.vocab_path is None else user_path(spec.vocab_path, "vocab_path")
    files = [*_content(path), *([] if vocab_path is None else [vocab_path])]
    return Whole(tuple(files), lambda: _load(path, source, vocab_path, spec), "tokens/1", source)


def _load(path: Path, source: str, vocab_path: Path | None, spec: DatasetSpec) -> LoadedRows:
    vocab = None if vocab_path is None else read_vocabulary(vocab_path)
    vocab_size = vocab.size if vocab is not None else int(spec.vocab_size or 0)
    folder = is_plain_folder(path)
    tokens = read_folder(path, vocab_size, spec.column) if folder else read_array(path, spec.column)
    rows = len(tokens) if tokens.ndim else 0
    return LoadedRows(tokens, vocab_size, DatasetReport(source, rows, rows), HOLDOUT, vocab=vocab)


def _content(path: Path) -> list[Path]:
    """The files that decide about the rows: the finished ones of a folder, all of a Zarr array's."""
    if is_plain_folder(path):
        return finished_files(path, _endings(path))
    return sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]


def _endings(folder: Path) -> list[str]:
    return [".parquet"] if ending(folder) == ".parquet" else [each for each in READERS if each not in FOLDERS]


def read_folder(folder: Path, vocab_size: int, column: str | None = None) -> np.ndarray:
    """The rows [M, D] of all finished files in a folder, in the order of their names; see the module.

    Raises:
        DatasetError: there is no such file, one is damaged or of another layout, or rows differ in length; it names the
            file.
    """
    paths = finished_files(folder, _endings(folder))
    parts: list[np.ndarray] = []
    for path in paths:
        array = read_array(path, column)
        if ending(path) == ".parquet" and len(array) == 0 and len(paths) > 1:
            continue  # Spark writes a file for each of its tasks, also for those that had no rows
        rows = pack_tokens(array, vocab_size, source=str(path))
        if parts and rows.shape[1] != parts[0].shape[1]:
            raise DatasetError(
                f"{path} has rows of {rows.shape[1]} tokens, {paths[0]} has rows of {parts[0].shape[1]}; all files of "
                "a folder must have one length D"
            )
        parts.append(rows)
    if not parts:
        raise DatasetError(f"{folder}: the data set is empty: none of its {len(paths)} files has rows")
    return np.concatenate(parts)


def is_plain_folder(path: Path) -> bool:
    """Whether it is one of files, and not an array's own (.zarr) or a mistake (rows.npy that is a folder)."""
    return path.is_dir() and (ending(path) not in READERS or ending(path) == ".parquet")


def read_vocabulary(path: Path) -> Vocabulary:
    """A JSON list of at least two different strings, id 0 first.

    Raises:
        DatasetError: the file is missing, is no such list, or repeats a token.
    """
    try:
        tokens = json.loads(path.read_bytes())  # UTF-8, or UTF-16 or UTF-32, which JSON allows
    except FileNotFoundError:
        raise DatasetError(f"the vocabulary {path} does not exist") from None
    except RecursionError:
        raise DatasetError(f"the vocabulary {path} cannot be read as JSON: it is nested too deeply") from None
    except (OSError, ValueError) as error:
        raise DatasetError(f"the vocabulary {path} cannot be read as JSON: {error}") from error
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens) or len(tokens) < 2:
        raise DatasetError(f"the vocabulary {path} must be a JSON list of at least two strings")
    try:
        return Vocabulary(tuple(tokens))
    except DatasetError as error:
        raise DatasetError(f"{path}: {error}") from None
