"""SMILES as they are published: text, tables, columns of Parquet and Arrow files, SD files, and the archive of QM9."""

import contextlib
import io
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from pairflow.datasets.column_files import COLUMNAR, check_column, read_strings
from pairflow.datasets.files import reading
from pairflow.datasets.text_files import COMPRESSIONS, TextSource, lines, read_column, read_head, text_source
from pairflow.errors import DatasetError

COLUMN = "smiles"
_TABLES = (".csv", ".tsv")
_BLANKS = re.compile("[ \t]+")
_END_OF_RECORD = "$$$$"
_KINDS = {
    "text": tuple(f"{kind}{packed}" for kind in (".smi", ".txt", *_TABLES) for packed in ("", *COMPRESSIONS)),
    "Parquet or Arrow": COLUMNAR,
    "SDF": tuple(f".sdf{packed}" for packed in ("", *COMPRESSIONS)),
}
ENDINGS = tuple(ending for endings in _KINDS.values() for ending in endings)


def kind_of(path: Path) -> str | None:
    """What a file's name says that it is: text, Parquet or Arrow, SDF; None where it says none of them."""
    return next((kind for kind, endings in _KINDS.items() if path.name.lower().endswith(endings)), None)


def iterate_smiles(path: Path, *, column: str | None = None) -> Iterator[str]:
    """One SMILES a row, as published; of an SD file (.sdf), one record a row. The file is not held in memory.

    Of a row of text only the SMILES is taken: what follows it after a blank is a name, or an extension (CXSMILES).

    Args:
        path: of a .smi, .txt, .csv, .tsv or .sdf (also .gz, .zst or .bz2 of these), .parquet, .arrow, .feather, or
            QM9's .tar.bz2.
        column: that holds the SMILES; "smiles" of a table by default. With it, a .smi has a header too.

    Raises:
        DatasetError: the file cannot be read, is damaged, or has no SMILES where they should be.
    """
    _check_column(path, column)
    if path.name.endswith(".tar.bz2"):
        return _read_qm9_archive(path)
    kind = kind_of(path)
    if kind == "Parquet or Arrow":
        return map(_first, read_strings(path, column, COLUMN))
    if kind == "SDF":
        return _records(path)
    source = text_source(path)
    return map(_first, read_column(source, path, column, COLUMN) if is_table(path, column) else _lines(source))


def check_head(path: Path, column: str | None) -> None:
    """What can be said of a file by its first lines: whether it is text, and has the column.

    Raises:
        DatasetError: as `iterate_smiles`.
    """
    _check_column(path, column)
    if kind_of(path) == "Parquet or Arrow":
        check_column(path, column, COLUMN)
        return
    head = read_head(path)
    if kind_of(path) != "SDF" and is_table(path, column):
        header = "".join(list(lines(head))[:1]) if '"' not in head.partition("\n")[0] else head

        def first_lines() -> contextlib.AbstractContextManager[TextIO]:
            return contextlib.nullcontext(io.StringIO(header, newline=""))

        next(read_column(first_lines, path, column, COLUMN), None)


def _check_column(path: Path, column: str | None) -> None:
    if column is not None and kind_of(path) not in ("text", "Parquet or Arrow"):
        raise DatasetError(
            f"{path} has records with a structure each, and no column '{column}'; leave the column out, which is for "
            "tables"
        )


def is_table(path: Path, column: str | None) -> bool:
    """Whether the first line of a file names columns."""
    return column is not None or any(suffix.lower() in _TABLES for suffix in path.suffixes)


def _lines(source: TextSource) -> Iterator[str]:
    with source() as text:
        yield from lines(text)


def _records(path: Path) -> Iterator[str]:
    """The records of an SD file (BIOVIA, CTfile formats, SDfile), each up to and without its line `$$$$`."""
    with text_source(path)() as text:
        record: list[str] = []
        for line in lines(text):
            if line.startswith(_END_OF_RECORD):
                yield "\n".join(record)
                record.clear()
            else:
                record.append(line)
        if any(map(str.strip, record)):
            raise DatasetError(
                f"{path} is damaged or cut short: its last record does not end with {_END_OF_RECORD}; replace it with "
                "a fresh copy"
            )


def _first(field: str) -> str:
    """The SMILES at the beginning of a field or line: cut at blanks only, as any other character may be a mistake."""
    return _BLANKS.split(field.strip(" \t\r\n"), maxsplit=1)[0]


def _read_qm9_archive(path: Path) -> Iterator[str]:
    """SMILES of the relaxed geometries from the published archive, one extended XYZ file a molecule.

    Such a file (Ramakrishnan et al., Scientific Data 1, 140022, 2014, table 2) has the number of atoms, the
    properties, one line an atom, the frequencies, and then "SMILES of GDB-17 <tab> SMILES of the relaxed geometry".
    """
    with reading(path), tarfile.open(path, "r|bz2") as archive:
        for member in archive:
            stream = archive.extractfile(member)
            if stream is None:
                continue
            cut = list(lines(stream.read().decode("ascii")))
            try:
                smiles = cut[int(cut[0]) + 3].split("\t")[1].strip()
            except (ValueError, IndexError):
                raise DatasetError(f"{path}: {member.name} is not laid out as QM9's XYZ files are") from None
            yield smiles
