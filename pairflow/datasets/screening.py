"""Which published SMILES RDKit can read, kept on disk so that the second load is quick."""

import hashlib
import logging
import os
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Literal

import numpy as np

from pairflow.datasets.files import file_sha256
from pairflow.datasets.smiles_files import iterate_smiles, kind_of
from pairflow.progress import Progress, bar

logger = logging.getLogger(__name__)

Treatment = Literal["published", "canonical", "standardised"]
Judge = Callable[[str], tuple[str, "Verdict"]]

# Part of the key of what is kept, here and in a store: raise it whenever rows would come out differently.
VERSION = 2


class Verdict(IntEnum):
    """What became of a row; the number is what is stored."""

    KEPT = 0
    EMPTY = 1
    UNREADABLE = 2
    NOT_STANDARDISED = 3

    @property
    def reason(self) -> str:
        """For reports."""
        return ("kept", "empty", "not read by RDKit", "not standardised by RDKit")[self]


@dataclass(frozen=True)
class Screened:
    """Rows of one file, or of a run of its rows.

    Attributes:
        smiles: every row; a kept row's text is final, any other is as published (of an SD record, its title).
        verdicts: [rows] uint8, see `Verdict`.
    """

    smiles: list[str]
    verdicts: np.ndarray


def screen(
    path: Path, *, treatment: Treatment, column: str | None = None, cache_dir: Path, progress: Progress
) -> Screened:
    """Reads a file of SMILES and marks the rows that RDKit does not read.

    Args:
        path: see `iterate_smiles`.
        treatment: see `screen_rows`.
        column: see `iterate_smiles`.
        cache_dir: the result is kept in its folder `prepared`, by the file's SHA-256.
        progress: whether, and by what, a bar is shown.

    Raises:
        DatasetError: the file cannot be read.
    """
    import rdkit

    key = f"{file_sha256(path)} {path.suffixes} {VERSION} {treatment} {column!r} {rdkit.__version__}"
    kept = cache_dir / "prepared" / f"{path.name}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.npz"
    found = _recall(kept)
    if found is None:
        rows = list(iterate_smiles(path, column=column))
        shown = bar(rows, desc=f"reading {path.name}", unit=" molecules", progress=progress, delay=1)
        found = screen_rows(shown, treatment, of_records=kind_of(path) == "SDF")
        _keep(found, kept)
    return found


def screen_rows(rows: Iterable[str], treatment: Treatment, *, of_records: bool) -> Screened:
    """Marks the rows that RDKit does not read; what becomes of a row depends on no other.

    Args:
        rows: as `iterate_smiles` gives them.
        treatment: "published" keeps a readable row's text, "canonical" writes RDKit's canonical SMILES,
            "standardised" first cleans the molecule up (rdMolStandardize) and takes its largest fragment.
        of_records: they are records of an SD file, which have no SMILES of their own: "published" is "canonical".
    """
    from rdkit import rdBase

    if of_records:
        judge = _rewriter(standardise=treatment == "standardised", of_records=True)
    else:
        judge = _keeper() if treatment == "published" else _rewriter(standardise=treatment == "standardised")
    with rdBase.BlockLogs():  # its line for each bad row: we count and report them
        judged = [judge(text) if text else (text, Verdict.EMPTY) for text in rows]
    return Screened([text for text, _ in judged], np.array([verdict for _, verdict in judged], dtype=np.uint8))


def _keeper() -> Judge:
    """Keeps the text of what RDKit reads."""
    from rdkit.Chem import MolFromSmiles

    def judge(smiles: str) -> tuple[str, Verdict]:
        return smiles, Verdict.UNREADABLE if MolFromSmiles(smiles) is None else Verdict.KEPT

    return judge


def _rewriter(*, standardise: bool, of_records: bool = False) -> Judge:
    """Writes canonical SMILES that RDKit reads again, after the clean-up if asked for."""
    from rdkit import Chem
    from rdkit.Chem.MolStandardize import rdMolStandardize

    chooser = rdMolStandardize.LargestFragmentChooser()

    read = Chem.MolFromMolBlock if of_records else Chem.MolFromSmiles

    def judge(published: str) -> tuple[str, Verdict]:
        molecule = read(published)
        smiles = published.partition("\n")[0].strip() if of_records else published
        if molecule is None:
            return smiles, Verdict.UNREADABLE
        try:
            if standardise:
                molecule = chooser.choose(rdMolStandardize.Cleanup(molecule))
            canonical = Chem.MolToSmiles(molecule)
        except (ValueError, RuntimeError):  # RDKit's sanitisation and invariant errors
            return smiles, Verdict.NOT_STANDARDISED
        if not canonical or Chem.MolFromSmiles(canonical) is None:
            return smiles, Verdict.NOT_STANDARDISED
        return canonical, Verdict.KEPT

    return judge


def _recall(path: Path) -> Screened | None:
    """What an earlier load kept; None if there is nothing, or nothing whole."""
    try:
        # np.load leaves a file open that it opened and found damaged, so it is given one.
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            smiles = archive["smiles"].tobytes().decode().split("\n")
            verdicts = archive["verdicts"]
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        logger.warning("%s is damaged (%s) and is made again", path, error)
        return None
    if verdicts.size == 0:
        smiles = []
    return Screened(smiles, verdicts) if len(smiles) == len(verdicts) else None


def _keep(screened: Screened, path: Path) -> None:
    """Writes the rows whole or not at all; a folder that cannot be written costs only the next load's time."""
    text = np.frombuffer("\n".join(screened.smiles).encode(), dtype=np.uint8)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".tmp", delete=False) as stream:
            try:
                np.savez_compressed(stream, smiles=text, verdicts=screened.verdicts)
                stream.close()
                os.replace(stream.name, path)
            except BaseException:
                Path(stream.name).unlink(missing_ok=True)
                raise
    except OSError as error:
        logger.warning("prepared rows are not kept, the next load takes as long: %s", error)
