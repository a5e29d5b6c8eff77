"""Molecules as rows `<bos> SMILES tokens <eos> <pad> …`: nci, qm9, zinc-250k, and your own."""

from collections import defaultdict
from pathlib import Path

from pairflow.datasets.assembly import LoadedRows
from pairflow.datasets.base import DatasetReport
from pairflow.datasets.download import RemoteFile
from pairflow.datasets.files import Sources, finished_files
from pairflow.datasets.screening import Screened, Treatment, Verdict, screen
from pairflow.datasets.smiles_files import check_head
from pairflow.datasets.vocabulary import Vocabulary, tokenise
from pairflow.errors import DatasetError
from pairflow.paths import user_path
from pairflow.spec import DatasetSpec

HOLDOUT = 0.05
NCI_LENGTH, QM9_LENGTH, ZINC_LENGTH, OWN_LENGTH = 48, 32, 74, 74
_ENDINGS = tuple(f"{kind}{packed}" for kind in (".smi", ".txt", ".csv", ".tsv") for packed in ("", ".gz"))
_EXAMPLES = 3

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


def load_nci(spec: DatasetSpec, sources: Sources) -> LoadedRows:
    """The 5,000 molecules of the NCI's screening set that RDKit carries, standardised, largest fragment each."""
    return _load([nci_file()], spec, sources, NCI_LENGTH, treatment="standardised")


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


def load_qm9(spec: DatasetSpec, sources: Sources) -> LoadedRows:
    """QM9: up to 9 heavy atoms C, N, O, F (Ramakrishnan et al., 2014). A CSV's SMILES are kept as published.

    The published archive writes SMILES by another program: those are made RDKit's canonical ones, as in the CSV
    copies that papers train on.
    """
    local = sources.find("qm9.csv", "qm9.csv.gz")
    if local is not None:
        return _load([local], spec, sources, QM9_LENGTH)
    archive = sources.find_or_fetch(QM9_ARCHIVE)
    note = "SMILES of the relaxed geometries, made canonical by RDKit: not row for row those of qm9.csv"
    return _load([archive], spec, sources, QM9_LENGTH, treatment="canonical", notes=(note,))


def load_zinc(spec: DatasetSpec, sources: Sources) -> LoadedRows:
    """ZINC-250k: drug-like molecules (Gómez-Bombarelli et al., 2018), SMILES as published.

    Local copies of the split files come first, for their split is the published one. The one file of all molecules
    has no split: that is made by the seed.
    """
    train, valid, test = (
        sources.find(f"zinc250k_{part}.smi", f"zinc250k_{part}.smi.gz") for part in ("train", "valid", "test")
    )
    if train is not None and test is not None:
        return _load([train, test], spec, sources, ZINC_LENGTH, split=True)
    whole = sources.find(ZINC_CSV.name, f"{ZINC_CSV.name}.gz")
    if whole is None and valid is not None and test is not None:
        note = (
            "only a part of ZINC-250k: the published training part (zinc250k_train.smi, about 220,000 rows) is not in "
            f"{sources.data_dir}; its validation part serves as training part, its test part is held out"
        )
        return _load([valid, test], spec, sources, ZINC_LENGTH, split=True, notes=(note,))
    return _load([whole or sources.find_or_fetch(ZINC_CSV)], spec, sources, ZINC_LENGTH)


def load_own(spec: DatasetSpec, sources: Sources) -> LoadedRows:
    """Your own SMILES, as they are: a file, or every finished file of a folder (see `finished_files`).

    Unlike an array, text that is cut short cannot be told from a shorter file: write under another name and rename.
    """
    path = user_path(spec.path or "")
    return _load(_own_files(path), spec, sources, OWN_LENGTH, source=str(path))


def check_own(spec: DatasetSpec) -> None:
    """What can be said of your own SMILES by the names and first lines of their files.

    Raises:
        DatasetError: as `load_own`.
    """
    for path in _own_files(user_path(spec.path or "")):
        check_head(path, spec.column)


def _own_files(path: Path) -> list[Path]:
    if not path.is_dir() and not path.name.lower().endswith(_ENDINGS):
        raise DatasetError(f"{path} is no file of SMILES: expected one that ends in {', '.join(_ENDINGS)}, or a folder")
    return finished_files(path, _ENDINGS) if path.is_dir() else [path]


def _load(
    paths: list[Path],
    spec: DatasetSpec,
    sources: Sources,
    default_length: int,
    *,
    treatment: Treatment = "published",
    notes: tuple[str, ...] = (),
    split: bool = False,
    source: str | None = None,
) -> LoadedRows:
    """Rows of files that fit, and a count of the others; `split`: two files are a published training and test part.

    The vocabulary is that of every row that fits D, before any subset is drawn: K does not depend on `max_rows`.
    """
    length = check_length(default_length if spec.max_length is None else spec.max_length)
    rejected: dict[str, list[str]] = defaultdict(list)
    rows: list[list[str]] = []
    rows_read, sizes = 0, []
    for path in paths:
        screened = screen(
            path, treatment=treatment, column=spec.column, cache_dir=sources.cache_dir, progress=sources.progress
        )
        fitting = _tokenise(screened, length, path.name, rejected)
        rows += fitting
        sizes.append(len(fitting))
        rows_read += len(screened.smiles)
    report = DatasetReport(
        source=source or ", ".join(map(str, paths)),
        rows_read=rows_read,
        rows_kept=len(rows),
        dropped={reason: len(dropped) for reason, dropped in sorted(rejected.items())},
        examples={reason: tuple(dropped[:_EXAMPLES]) for reason, dropped in sorted(rejected.items())},
        notes=notes,
    )
    if not rows:
        raise DatasetError(f"the data set is empty: {report.summary()}; expected one SMILES a row, as long as D − 2")
    vocab = Vocabulary.from_rows(rows)
    return LoadedRows(
        tokens=vocab.encode(rows, length),
        vocab_size=vocab.size,
        report=report,
        holdout=HOLDOUT,
        vocab=vocab,
        num_train=sizes[0] if split else None,
    )


def check_length(length: int) -> int:
    """D, if a molecule can be written in so many tokens.

    Raises:
        DatasetError: it cannot.
    """
    if length < 3:
        raise DatasetError(f"max_length must be at least 3 (<bos>, one token, <eos>), got {length}")
    return length


def _tokenise(screened: Screened, length: int, name: str, rejected: dict[str, list[str]]) -> list[list[str]]:
    """Tokens of the rows that fit; the others are appended to `rejected`, by reason, with their row from 0."""
    fitting = []
    for number, (smiles, code) in enumerate(zip(screened.smiles, screened.verdicts.tolist(), strict=True)):
        tokens = tokenise(smiles) if code == Verdict.KEPT else None
        if tokens is not None and len(tokens) <= length - 2:
            fitting.append(tokens)
            continue
        if code != Verdict.KEPT:
            reason = Verdict(code).reason
        elif tokens is None:
            reason = "not tokenised"
        else:
            reason = f"longer than {length - 2} tokens"
        rejected[reason].append(f"{name} row {number}: {smiles!r}")
    return fitting
