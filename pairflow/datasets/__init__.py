"""Data sets by name: `load(DatasetSpec(name="digits"))` gives token rows, split and ready to couple.

`_REGISTRY` is the one list of data sets, `load` the one dispatcher. A new data set is what finds its files
and makes rows of them, and a line there.
May import `spec`, `errors` and `progress` of the library: no torch.
"""

import os
from collections.abc import Callable
from pathlib import Path

from pairflow.datasets import images, molecules, outside, text, tokens
from pairflow.datasets.base import DatasetInfo, DatasetReport, TokenDataset
from pairflow.datasets.files import Sources
from pairflow.datasets.molecules import Molecules
from pairflow.datasets.preparation import Preparation, Whole
from pairflow.datasets.remote import is_remote
from pairflow.datasets.vocabulary import Vocabulary
from pairflow.errors import DatasetError
from pairflow.paths import default_home, user_path
from pairflow.progress import Progress
from pairflow.spec import DatasetSpec

__all__ = [
    "DatasetInfo",
    "DatasetReport",
    "Preparation",
    "TokenDataset",
    "Vocabulary",
    "check",
    "identity",
    "load",
    "names",
    "prepare",
]

Finder = Callable[[DatasetSpec, Sources], Molecules | Whole]

_LOCAL_OR_DOWNLOAD = "PAIRFLOW_DATA_DIR or download"
_REGISTRY: dict[str, tuple[DatasetInfo, Finder]] = {
    info.name: (info, finder)
    for info, finder in (
        (
            DatasetInfo("digits", "images", 64, 2, "1,797 digits, 8×8, binarised, labelled", "scikit-learn"),
            images.digits,
        ),
        (
            DatasetInfo(
                "nci",
                "molecules",
                molecules.NCI_LENGTH,
                None,
                "molecules of the NCI screening set, largest fragments",
                "RDKit",
            ),
            molecules.nci,
        ),
        (
            DatasetInfo("patches", "images", 192, 256, "8×8 RGB crops of two photographs", "scikit-learn"),
            images.patches,
        ),
        (
            DatasetInfo(
                "qm9",
                "molecules",
                molecules.QM9_LENGTH,
                None,
                "about 133,000 molecules of up to 9 heavy atoms",
                _LOCAL_OR_DOWNLOAD,
                ("qm9.csv*", "dsgdb9nsd.xyz.tar.bz2"),
            ),
            molecules.qm9,
        ),
        (
            DatasetInfo(
                "zinc-250k",
                "molecules",
                molecules.ZINC_LENGTH,
                None,
                "about 250,000 drug-like molecules",
                _LOCAL_OR_DOWNLOAD,
                ("zinc250k_*.smi*", "250k_rndm_zinc_drugs_clean_3.csv*"),
            ),
            molecules.zinc,
        ),
        (
            DatasetInfo(
                "mnist-binary",
                "images",
                784,
                2,
                "70,000 digits, 28×28, binarised, labelled",
                _LOCAL_OR_DOWNLOAD,
                ("train-images-idx3-ubyte*",),
            ),
            images.mnist,
        ),
        (
            DatasetInfo(
                "cifar-10",
                "images",
                3072,
                256,
                "60,000 photographs, 32×32 RGB, labelled",
                _LOCAL_OR_DOWNLOAD,
                ("cifar-10-binary.tar.gz", "cifar10_train*.bin*"),
            ),
            images.cifar,
        ),
        (
            DatasetInfo(
                "tokens",
                "tokens",
                None,
                None,
                "bring your own: integers [M, D] in .npy, .npz, .parquet, .arrow or .zarr, or a folder of files",
                "spec.path",
            ),
            tokens.own,
        ),
        (
            DatasetInfo(
                "smiles",
                "molecules",
                None,
                None,
                "bring your own: SMILES in .smi, .csv, .tsv, .parquet or .arrow, records of .sdf, or a folder of files",
                "spec.path",
            ),
            molecules.own,
        ),
        (
            DatasetInfo(
                "text",
                "tokens",
                None,
                None,
                "bring your own: text in UTF-8, .txt or a folder of them, cut into windows of bytes or characters",
                "spec.path",
            ),
            text.own,
        ),
    )
}


def names() -> list[DatasetInfo]:
    """Every data set that `load` knows, in the order in which a newcomer meets them."""
    return [info for info, _ in _REGISTRY.values()]


def load(
    spec: DatasetSpec,
    *,
    data_dir: Path | None = None,
    cache_dir: Path | None = None,
    progress: Progress = True,
) -> TokenDataset:
    """Loads a data set: local copies first, else a verified download; checked, cut to `max_rows` and split.

    Splits are made by `split_seed`, except that mnist-binary, cifar-10 and the split files of zinc-250k keep their
    published parts. An explicit `holdout` pools those parts and splits them by the seed. `max_rows` is a seeded
    subset, of published parts in proportion. Held out by default: 5 % of molecules, 10 % of everything else.

    Args:
        spec: which data, how much of it, how split.
        data_dir: folder of local copies; $PAIRFLOW_DATA_DIR by default, read now.
        cache_dir: folder for downloads and prepared rows; `downloads` in $PAIRFLOW_HOME (~/.pairflow) by default.
        progress: bars on downloads and on what takes longer than a second; see `pairflow.progress`.

    Raises:
        DatasetError: the data cannot be found, downloaded, read, tokenised or split.
    """
    return prepare(spec, data_dir=data_dir, cache_dir=cache_dir, progress=progress).load()


def prepare(
    spec: DatasetSpec,
    *,
    data_dir: Path | None = None,
    cache_dir: Path | None = None,
    progress: Progress = True,
) -> Preparation:
    """Finds what `load` would read, downloads included, and reads nothing yet; see `Preparation`.

    Args:
        spec: which data.
        data_dir: as for `load`.
        cache_dir: as for `load`.
        progress: as for `load`.

    Raises:
        DatasetError: the data cannot be found or downloaded.
    """
    info, finder = _entry(spec)
    sources = _sources(data_dir, cache_dir, progress)
    return Preparation(spec, info, finder(spec, sources), sources)


def check(spec: DatasetSpec, *, data_dir: Path | None = None, cache_dir: Path | None = None) -> None:
    """Says what is wrong with a data set as `load` would, in the same words, as far as it can be known at once.

    By the spec, the names of files and their first lines: it downloads nothing and reads no molecule. Your own array is
    read whole, since that takes a moment. Call it before anything is started for the sake of the data.

    Args:
        spec: which data.
        data_dir: as for `load`.
        cache_dir: as for `load`.

    Raises:
        DatasetError: the data cannot be had.
    """
    info, finder = _entry(spec)
    sources = _sources(data_dir, cache_dir, progress=False)
    if spec.path is not None and is_remote(spec.path):
        return
    if spec.name == "tokens":
        Preparation(spec, info, finder(spec, sources), sources).load().part("train")
    elif spec.name == "smiles":
        molecules.check_own(spec)
    elif spec.name == "text":
        text.check_own(spec)
    elif info.origin == _LOCAL_OR_DOWNLOAD:
        sources.find()  # whether there is such a folder


def identity(spec: DatasetSpec, *, data_dir: Path | None = None, cache_dir: Path | None = None) -> str | None:
    """What `load` would go by, without reading it: equal as long as it would give the same rows, see `outside`.

    Args:
        spec: which data.
        data_dir: as for `load`.
        cache_dir: as for `load`.
    """
    return outside.identity(spec, _sources(data_dir, cache_dir, progress=False))


def _entry(spec: DatasetSpec) -> tuple[DatasetInfo, Finder]:
    if spec.name not in _REGISTRY:
        raise DatasetError(f"there is no data set '{spec.name}', expected one of {', '.join(_REGISTRY)}")
    info, finder = _REGISTRY[spec.name]
    if spec.max_length is not None and info.kind != "molecules":
        raise DatasetError(
            f"max_length is for molecules, '{spec.name}' holds {info.kind} of fixed length; leave it out"
        )
    if spec.max_length is not None:
        molecules.check_length(spec.max_length)
    return info, finder


def _sources(data_dir: Path | None, cache_dir: Path | None, progress: Progress) -> Sources:
    return Sources(
        data_dir=_folder(data_dir, "PAIRFLOW_DATA_DIR"),
        cache_dir=(_folder(None, "PAIRFLOW_HOME") or default_home()) / "downloads"
        if cache_dir is None
        else Path(cache_dir),
        progress=progress,
    )


def _folder(given: Path | None, variable: str) -> Path | None:
    """A folder as given, else as the environment variable says, else None."""
    if given is not None:
        return Path(given)
    value = os.environ.get(variable)
    return user_path(value, variable) if value else None
