"""Which published SMILES RDKit can read, kept on disk so that the second load is quick."""

import hashlib
import itertools
import logging
import os
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pairflow.datasets.files import file_sha256
from pairflow.datasets.smiles_files import iterate_smiles, kind_of
from pairflow.progress import Progress, bar

logger = logging.getLogger(__name__)

Treatment = Literal["published", "canonical", "standardised"]
_OF_RDKIT = (ValueError, RuntimeError)  # of its sanitisation and invariants
_BATCH = 500  # molecules that are cleaned up together

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
        found = screen_rows(shown, treatment, of_records=kind_of(path) == "SDF", num_threads=os.cpu_count() or 1)
        _keep(found, kept)
    return found


def screen_rows(rows: Iterable[str], treatment: Treatment, *, of_records: bool, num_threads: int = 1) -> Screened:
    """Marks the rows that RDKit does not read; what becomes of a row depends on no other.

    Args:
        rows: as `iterate_smiles` gives them.
        treatment: "published" keeps a readable row's text, "canonical" writes RDKit's canonical SMILES,
            "standardised" first cleans the molecule up (rdMolStandardize) and takes its largest fragment.
        of_records: they are records of an SD file, which have no SMILES of their own: "published" is "canonical".
        num_threads: that clean molecules up.
    """
    from rdkit import Chem, rdBase

    read = Chem.MolFromMolBlock if of_records else Chem.MolFromSmiles
    as_published = treatment == "published" and not of_records
    judged: list[tuple[str, Verdict]] = []
    rest = iter(rows)
    with rdBase.BlockLogs():  # its line for each bad row: we count and report them
        while batch := [*itertools.islice(rest, _BATCH)]:
            molecules = [read(text) if text else None for text in batch]
            cleaned = _standardised(molecules, num_threads) if treatment == "standardised" else molecules
            for text, molecule, final in zip(batch, molecules, cleaned, strict=True):
                if not text:
                    judged.append((text, Verdict.EMPTY))
                    continue
                published = text.partition("\n")[0].strip() if of_records else text
                if molecule is None:
                    judged.append((published, Verdict.UNREADABLE))
                elif as_published:
                    judged.append((published, Verdict.KEPT))
                elif (canonical := _canonical(final)) is None:
                    judged.append((published, Verdict.NOT_STANDARDISED))
                else:
                    judged.append((canonical, Verdict.KEPT))
    return Screened([text for text, _ in judged], np.array([verdict for _, verdict in judged], dtype=np.uint8))


def _standardised(molecules: Sequence[Any], num_threads: int) -> list[Any]:
    """The largest fragments of molecules, cleaned up; None for what is None or cannot be."""
    from rdkit import Chem
    from rdkit.Chem.MolStandardize import rdMolStandardize

    cleaned = [None if each is None else Chem.Mol(each) for each in molecules]
    try:
        rdMolStandardize.CleanupInPlace([each for each in cleaned if each is not None], num_threads)
    except _OF_RDKIT:  # one of them cannot be, and RDKit says neither which nor how far it came
        cleaned = [None if each is None else _or_none(rdMolStandardize.Cleanup, each) for each in molecules]
    chooser = rdMolStandardize.LargestFragmentChooser()
    return [None if each is None else _or_none(chooser.choose, each) for each in cleaned]


def _canonical(molecule: Any) -> str | None:
    """SMILES that RDKit reads again; None if it writes none."""
    from rdkit import Chem

    smiles: str | None = None if molecule is None else _or_none(Chem.MolToSmiles, molecule)
    return smiles if smiles and Chem.MolFromSmiles(smiles) is not None else None


def _or_none(make: Callable[[Any], Any], molecule: Any) -> Any:
    try:
        return make(molecule)
    except _OF_RDKIT:
        return None


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
