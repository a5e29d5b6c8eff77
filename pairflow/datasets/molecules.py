"""Molecules as rows `<bos> SMILES tokens <eos> <pad> …`: nci, qm9, zinc-250k, and your own."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pairflow.datasets.assembly import LoadedRows
from pairflow.datasets.base import DatasetReport, TokenDataset
from pairflow.datasets.download import RemoteFile
from pairflow.datasets.files import Sources, files_at
from pairflow.datasets.pieces import PIECE_BYTES, Piece, PreparedPiece, Recipe, cut, merge, tokenised
from pairflow.datasets.remote import is_remote, local_path, source_name
from pairflow.datasets.screening import VERSION, Treatment, screen
from pairflow.datasets.smiles_files import ENDINGS, check_head, kind_of
from pairflow.errors import DatasetError
from pairflow.paths import user_path
from pairflow.spec import DatasetSpec

HOLDOUT = 0.05
NCI_LENGTH, QM9_LENGTH, ZINC_LENGTH, OWN_LENGTH = 48, 32, 74, 74

# Checksum as tensorflow_datasets lists it (tensorflow_datasets/datasets/qm9/checksums.tsv).
QM9_ARCHIVE = RemoteFile(
    name="dsgdb9nsd.xyz.tar.bz2",
    url="https://ndownloader.figshare.com/files/3195389",
    checksum="sha256:3a63848ac80691bdb8d41834b575afad345b9300d7a2db0c38adb7f6eaa8360c",
)
# Checksum as torchdrug lists it (torchdrug/datasets/zinc250k.py).
ZINC_CSV = RemoteFile(
    name="250k_rndm_zinc_drugs_clean_3.csv",
    url="https://raw.githubusercontent.com/aspuru-guzik-group/chemical_vae/master/models/zinc_properties/"
    "250k_rndm_zinc_drugs_clean_3.csv",
    checksum="md5:b59078b2b04c6e9431280e3dc42048d5",
)


@dataclass(frozen=True)
class Molecules:
    """Files of molecules, and what is to be made of them.

    Attributes:
        files: that hold the rows, in order.
        recipe: how rows become tokens.
        column: of SMILES, see `iterate_smiles`.
        source: as the report calls the files.
        notes: what a reader of results must know.
        split: two files are a published training and test part.
    """

    files: tuple[Path, ...]
    recipe: Recipe
    column: str | None
    source: str
    notes: tuple[str, ...] = ()
    split: bool = False

    @property
    def version(self) -> str:
        """Of what makes rows of these files: equal files give equal rows as long as it is the same."""
        import rdkit

        return f"molecules/{VERSION}, rdkit {rdkit.__version__}"

    def pieces(self, piece_bytes: int = PIECE_BYTES) -> Iterator[Piece]:
        """The rows, cut; see `pairflow.datasets.pieces`."""
        return cut(self.files, column=self.column, piece_bytes=piece_bytes)

    def read(self, sources: Sources) -> LoadedRows:
        """The rows, in this process; what is screened is kept in the folder of downloads."""

        def prepared() -> Iterator[PreparedPiece]:
            for number, path in enumerate(self.files):
                screened = screen(
                    path,
                    treatment=self.recipe.treatment,
                    column=self.column,
                    cache_dir=sources.cache_dir,
                    progress=sources.progress,
                )
                yield tokenised(screened, Piece(number, path.name, ()), self.recipe.length)

        return self.rows(prepared())

    def rows(
        self, pieces: Iterable[PreparedPiece], on_piece: Callable[[PreparedPiece], None] = lambda _: None
    ) -> LoadedRows:
        """The rows of prepared pieces, in their order; the vocabulary is that of every row that fits.

        It is made before any subset is drawn: K does not depend on `max_rows`.

        Raises:
            DatasetError: none fits, or memory does not hold them.
        """
        merged = merge(pieces, self.recipe.length, on_piece=on_piece)
        report = DatasetReport(
            source=self.source,
            rows_read=merged.rows_read,
            rows_kept=len(merged.tokens),
            dropped=merged.dropped,
            examples=merged.examples,
            notes=self.notes,
        )
        if not len(merged.tokens):
            raise DatasetError(
                f"the data set is empty: {report.summary()}; expected one SMILES a row, as long as D − 2"
            )
        return LoadedRows(
            tokens=merged.tokens,
            vocab_size=merged.vocab.size,
            report=report,
            holdout=HOLDOUT,
            vocab=merged.vocab,
            num_train=merged.rows_by_file.get(0, 0) if self.split else None,
        )

    def chosen_from(self, rows: TokenDataset) -> LoadedRows:
        """Rows that were assembled, all of them, as they were before."""
        return LoadedRows(
            tokens=rows.tokens,
            vocab_size=rows.vocab_size,
            report=rows.report,
            holdout=HOLDOUT,
            vocab=rows.vocab,
            num_train=len(rows.splits["train"]) if self.split else None,
        )


def nci(spec: DatasetSpec, sources: Sources) -> Molecules:
    """The 5,000 molecules of the NCI's screening set that RDKit carries, standardised, largest fragment each."""
    return _molecules([nci_file()], spec, NCI_LENGTH, treatment="standardised")


def nci_file() -> Path:
    """Where RDKit has them.

    Raises:
        DatasetError: it has not.
    """
    from rdkit import RDConfig

    path = Path(RDConfig.RDDataDir) / "NCI" / "first_5K.smi"
    if not path.is_file():
        raise DatasetError(f"this RDKit has no {path}; install RDKit from PyPI (pip install rdkit), which carries it")
    return path


def qm9(spec: DatasetSpec, sources: Sources) -> Molecules:
    """QM9: up to 9 heavy atoms C, N, O, F (Ramakrishnan et al., 2014). A CSV's SMILES are kept as published.

    The published archive writes SMILES by another program: those are made RDKit's canonical ones, as in the CSV
    copies that papers train on.
    """
    local = sources.find("qm9.csv", "qm9.csv.gz")
    if local is not None:
        return _molecules([local], spec, QM9_LENGTH)
    archive = sources.find_or_fetch(QM9_ARCHIVE)
    note = "SMILES of the relaxed geometries, made canonical by RDKit: not row for row those of qm9.csv"
    return _molecules([archive], spec, QM9_LENGTH, treatment="canonical", notes=(note,))


def zinc(spec: DatasetSpec, sources: Sources) -> Molecules:
    """ZINC-250k: drug-like molecules (Gómez-Bombarelli et al., 2018), SMILES as published.

    Local copies of the split files come first, for their split is the published one. The one file of all molecules
    has no split: that is made by the seed.
    """
    train, valid, test = (
        sources.find(f"zinc250k_{part}.smi", f"zinc250k_{part}.smi.gz") for part in ("train", "valid", "test")
    )
    if train is not None and test is not None:
        return _molecules([train, test], spec, ZINC_LENGTH, split=True)
    whole = sources.find(ZINC_CSV.name, f"{ZINC_CSV.name}.gz")
    if whole is None and valid is not None and test is not None:
        note = (
            "only a part of ZINC-250k: the published training part (zinc250k_train.smi, about 220,000 rows) is not in "
            f"{sources.data_dir}; its validation part serves as training part, its test part is held out"
        )
        return _molecules([valid, test], spec, ZINC_LENGTH, split=True, notes=(note,))
    return _molecules([whole or sources.find_or_fetch(ZINC_CSV)], spec, ZINC_LENGTH)


def own(spec: DatasetSpec, sources: Sources) -> Molecules:
    """Your own SMILES, as they are: a file, or every finished file of a folder or pattern (see `files_at`).

    Unlike an array, text that is cut short cannot be told from a shorter file: write under another name and rename.
    """
    path = spec.path or ""
    source = source_name(path)
    return _molecules(_own_files(str(local_path(path, sources.cache_dir))), spec, OWN_LENGTH, source=source)


def check_own(spec: DatasetSpec) -> None:
    """What can be said of your own SMILES by the names and first lines of their files.

    Raises:
        DatasetError: as `own`, and as reading the files.
    """
    if is_remote(spec.path or ""):
        return
    for path in _own_files(str(user_path(spec.path or ""))):
        check_head(path, spec.column)


def _own_files(path: str) -> list[Path]:
    files = files_at(path, ENDINGS, "file of SMILES")
    kinds = {kind_of(each): each for each in files}
    if len(kinds) > 1:
        some = "; ".join(f"{kind}, such as {each.name}" for kind, each in kinds.items())
        raise DatasetError(
            f"{path} holds files of {len(kinds)} kinds ({some}), expected one, as they may be the same rows twice; "
            "keep each kind in a folder of its own"
        )
    return files


def _molecules(
    files: list[Path],
    spec: DatasetSpec,
    default_length: int,
    *,
    treatment: Treatment = "published",
    notes: tuple[str, ...] = (),
    split: bool = False,
    source: str | None = None,
) -> Molecules:
    length = check_length(default_length if spec.max_length is None else spec.max_length)
    return Molecules(
        files=tuple(files),
        recipe=Recipe(treatment, length),
        column=spec.column,
        source=source or ", ".join(map(str, files)),
        notes=notes,
        split=split,
    )


def check_length(length: int) -> int:
    """D, if a molecule can be written in so many tokens.

    Raises:
        DatasetError: it cannot.
    """
    if length < 3:
        raise DatasetError(f"max_length must be at least 3 (<bos>, one token, <eos>), got {length}")
    return length
