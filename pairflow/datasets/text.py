"""Bring your own: text, cut into windows of D bytes or characters."""

import codecs
from pathlib import Path

import numpy as np

from pairflow.datasets.assembly import LoadedRows
from pairflow.datasets.base import DatasetReport
from pairflow.datasets.files import Sources, files_at
from pairflow.datasets.preparation import Whole
from pairflow.datasets.remote import is_remote, local_path, source_name
from pairflow.datasets.text_files import COMPRESSIONS, open_bytes, read_head
from pairflow.datasets.vocabulary import Vocabulary
from pairflow.errors import DatasetError
from pairflow.paths import user_path
from pairflow.spec import DatasetSpec

HOLDOUT = 0.05
WINDOW = 128
ENDINGS = tuple(f".txt{packed}" for packed in ("", *COMPRESSIONS))


def own(spec: DatasetSpec, sources: Sources) -> Whole:
    """Your text: a file, or every finished file of a folder or pattern, each cut by itself from its beginning.

    Of bytes K is 256; of characters it is what occurs, in code point order. What is left at the end of a file, shorter
    than a window, is dropped and counted. Line ends are kept as they are.

    Raises:
        DatasetError: there is no such file; and, as soon as it is read, one is no text in UTF-8, or none has a window.
    """
    path = spec.path or ""
    source = source_name(path)
    files = files_at(str(local_path(path, sources.cache_dir)), ENDINGS, "file of text")
    return Whole(tuple(files), lambda: _load(files, source, spec), "text/1", source)


def check_own(spec: DatasetSpec) -> None:
    """What can be said of your own text by the names and beginnings of its files.

    Raises:
        DatasetError: as `own`.
    """
    if is_remote(spec.path or ""):
        return
    for path in files_at(str(user_path(spec.path or "")), ENDINGS, "file of text"):
        read_head(path)


def _load(files: list[Path], source: str, spec: DatasetSpec) -> LoadedRows:
    length, unit = spec.window or WINDOW, spec.unit or "bytes"
    parts, left = [], []
    for path in files:
        text = _read(path)
        units = np.frombuffer(text, np.uint8)
        if unit == "characters":
            units = np.frombuffer(text.decode().encode("utf-32-le"), "<u4")
        whole = len(units) // length * length
        parts.append(units[:whole].reshape(-1, length))
        if len(units) > whole:
            left.append(f"{path.name}: {len(units) - whole:,} {unit} at its end")
    tokens = np.concatenate(parts)
    reason = f"shorter than {length} {unit}"
    report = DatasetReport(
        source=source,
        rows_read=len(tokens) + len(left),
        rows_kept=len(tokens),
        dropped={reason: len(left)} if left else {},
        examples={reason: tuple(left[:3])} if left else {},
    )
    if not len(tokens):
        raise DatasetError(f"the data set is empty: {report.summary()}; give more text, or a smaller window")
    if unit == "bytes":
        return LoadedRows(tokens, 256, report, HOLDOUT)
    known, ids = np.unique(tokens, return_inverse=True)
    if len(known) < 2:
        raise DatasetError(f"{source} holds one character alone, {chr(known[0])!r}; expected text of two or more")
    vocab = Vocabulary(tuple(map(chr, known.tolist())))
    return LoadedRows(ids.reshape(tokens.shape), vocab.size, report, HOLDOUT, vocab=vocab)


def _read(path: Path) -> bytes:
    """A file's text as UTF-8, without a byte order mark."""
    read_head(path)  # says of what is another kind of file what it is
    with open_bytes(path) as stream:
        data = stream.read()
    try:
        data.decode()
    except UnicodeDecodeError as error:
        raise DatasetError(
            f"{path} is no text in UTF-8: {error.reason} at byte {error.start:,}; save it as UTF-8"
        ) from None
    return data.removeprefix(codecs.BOM_UTF8)
