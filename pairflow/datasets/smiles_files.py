"""SMILES as they are published: .smi, .csv and .tsv files, and the archive of QM9."""

import re
import tarfile
from pathlib import Path

from pairflow.datasets.files import reading
from pairflow.datasets.text_files import lines, read_column, read_head, read_text
from pairflow.errors import DatasetError
from pairflow.progress import Progress, bar

_COLUMN = "smiles"
_TABLES = (".csv", ".tsv")
_BLANKS = re.compile("[ \t]+")


def read_smiles(path: Path, *, column: str | None = None, progress: Progress) -> list[str]:
    """One SMILES a row, as published, from a .smi, .txt, .csv, .tsv (.gz of these as well) or QM9 .tar.bz2 file.

    Of a row only the SMILES is taken: what follows it after a blank is a name, or an extension (CXSMILES).

    Args:
        path: of the file.
        column: that holds the SMILES; "smiles" of a table by default. With it, a .smi has a header too.
        progress: whether, and by what, a bar is shown.

    Raises:
        DatasetError: the file cannot be read, is damaged, or has no SMILES where they should be.
    """
    if path.name.endswith(".tar.bz2"):
        return _read_qm9_archive(path, progress)
    text = read_text(path)
    if is_table(path, column):
        return [_first(field) for field in read_column(text, path, column, _COLUMN)]
    return [_first(line) for line in lines(text)]


def check_head(path: Path, column: str | None) -> None:
    """What can be said of a file by its first lines: whether it is text, and has the column.

    Raises:
        DatasetError: as `read_smiles`.
    """
    head = read_head(path)
    if is_table(path, column):
        header = lines(head)[:1] if '"' not in head.partition("\n")[0] else [head]
        next(read_column("".join(header), path, column, _COLUMN), None)


def is_table(path: Path, column: str | None) -> bool:
    """Whether the first line of a file names columns."""
    return column is not None or any(suffix.lower() in _TABLES for suffix in path.suffixes)


def _first(field: str) -> str:
    """The SMILES at the beginning of a field or line: cut at blanks only, as any other character may be a mistake."""
    return _BLANKS.split(field.strip(" \t\r\n"), maxsplit=1)[0]


def _read_qm9_archive(path: Path, progress: Progress) -> list[str]:
    """SMILES of the relaxed geometries from the published archive, one extended XYZ file a molecule.

    Such a file (Ramakrishnan et al., Scientific Data 1, 140022, 2014, table 2) has the number of atoms, the
    properties, one line an atom, the frequencies, and then "SMILES of GDB-17 <tab> SMILES of the relaxed geometry".
    """
    smiles = []
    with reading(path), tarfile.open(path, "r|bz2") as archive:
        for member in bar(archive, desc=path.name, unit=" molecules", progress=progress, delay=1):
            stream = archive.extractfile(member)
            if stream is None:
                continue
            cut = lines(stream.read().decode("ascii"))
            try:
                smiles.append(cut[int(cut[0]) + 3].split("\t")[1].strip())
            except (ValueError, IndexError):
                raise DatasetError(f"{path}: {member.name} is not laid out as QM9's XYZ files are") from None
    return smiles
