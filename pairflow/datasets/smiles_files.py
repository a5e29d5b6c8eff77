"""SMILES as they are published: .smi and .csv files, and the archive of QM9."""

import csv
import io
import tarfile
from pathlib import Path

from pairflow.datasets.files import read_text, reading
from pairflow.errors import DatasetError
from pairflow.progress import Progress, bar


def read_smiles(path: Path, *, progress: Progress) -> list[str]:
    """One SMILES a row, as published, from a .smi, .csv or QM9 .tar.bz2 file (.gz of the first two as well).

    Raises:
        DatasetError: the file cannot be read, is damaged, or has no SMILES where they should be.
    """
    if path.name.endswith(".tar.bz2"):
        return _read_qm9_archive(path, progress)
    text = read_text(path)
    if ".csv" in path.suffixes:
        return _read_csv(text, path)
    # The SMILES is the first field; a name may follow it.
    return [next(iter(line.split(maxsplit=1)), "") for line in text.splitlines()]


def _read_csv(text: str, path: Path) -> list[str]:
    rows = csv.DictReader(io.StringIO(text, newline=""))
    try:
        if "smiles" not in (rows.fieldnames or ()):
            raise DatasetError(f"{path} has columns {list(rows.fieldnames or ())}, expected one named 'smiles'")
        return [(row["smiles"] or "").strip() for row in rows]
    except csv.Error as error:
        raise DatasetError(f"{path}, line {rows.line_num}, is not CSV: {error}") from error


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
            lines = stream.read().decode("ascii").splitlines()
            try:
                smiles.append(lines[int(lines[0]) + 3].split("\t")[1].strip())
            except (ValueError, IndexError):
                raise DatasetError(f"{path}: {member.name} is not laid out as QM9's XYZ files are") from None
    return smiles
