"""Finding local copies of public data and reading them, with errors that name the file."""

import glob
import gzip
import hashlib
import importlib.util
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pairflow.datasets.download import RemoteFile, fetch
from pairflow.errors import DatasetError
from pairflow.progress import Progress


@dataclass(frozen=True)
class Sources:
    """Where a loader may look: your local copies first, then the downloads.

    Attributes:
        data_dir: folder of local copies, or None.
        cache_dir: folder for downloads and prepared rows; made when first needed.
        progress: whether, and by what, bars are shown.
    """

    data_dir: Path | None
    cache_dir: Path
    progress: Progress

    def find(self, *names: str) -> Path | None:
        """The first of these files that lies in `data_dir`.

        Raises:
            DatasetError: `data_dir` is no folder, or a folder has the file's name.
        """
        if self.data_dir is None:
            return None
        if not self.data_dir.is_dir():
            raise DatasetError(f"the data folder {self.data_dir} does not exist; correct or unset PAIRFLOW_DATA_DIR")
        for name in names:
            path = self.data_dir / name
            if path.is_dir():
                raise DatasetError(f"{path} is a folder, expected a file")
            if path.is_file():
                return path
        return None

    def find_or_fetch(self, remote: RemoteFile, *other_names: str) -> Path:
        """The local copy of a published file, else its verified download.

        Only the download has to match the checksum: a local copy may be compressed anew, and is yours.

        Raises:
            DatasetError: it is not there and cannot be downloaded.
        """
        return self.find(remote.name, *other_names) or fetch(remote, self.cache_dir, progress=self.progress)


_PACKAGED = {  # of scikit-learn
    "digits": ("datasets/data/digits.csv.gz",),
    "patches": ("datasets/images/china.jpg", "datasets/images/flower.jpg"),
}


def packaged(name: str) -> tuple[Path, ...]:
    """The files of a dataset that comes with scikit-learn, found without loading it; none of any other."""
    found = importlib.util.find_spec("sklearn") if name in _PACKAGED else None
    folders = (found.submodule_search_locations or ()) if found else ()
    return tuple(Path(folder) / each for folder in folders for each in _PACKAGED[name])


_UNFINISHED = (".partial", ".part", ".tmp")


def finished_files(folder: Path, endings: Sequence[str]) -> list[Path]:
    """The files of a folder, in the order of their names, that are complete.

    A file is complete when it bears its name: names that begin with "." or "_" or end in .partial, .part or .tmp are
    those of files that are being written, and passed over. Write under such a name and rename the file at the end.

    Raises:
        DatasetError: there is none, or one has none of these endings; it names the file.
    """
    with reading(folder):
        names = sorted(path.name for path in folder.iterdir())
    return _of_a_kind([folder / name for name in names if _is_finished(name)], endings, f"the folder {folder}")


def _is_finished(name: str) -> bool:
    return not name.startswith((".", "_")) and not name.endswith(_UNFINISHED)


def _of_a_kind(finished: list[Path], endings: Sequence[str], where: str) -> list[Path]:
    expected = ", ".join(endings)
    for path in finished:
        if path.is_dir() or not path.name.lower().endswith(tuple(endings)):
            what = "a folder" if path.is_dir() else f"a file that ends in {path.suffix!r}"
            raise DatasetError(
                f"{path} is {what}, expected only files that end in {expected}; move it elsewhere, or put a '_' before "
                "its name to have it passed over"
            )
    if not finished:
        raise DatasetError(f"{where} has no finished file; expected some that end in {expected}")
    seen: dict[Path, Path] = {}
    for path in finished:
        ending = max((each for each in endings if path.name.lower().endswith(each)), key=len)
        first = seen.setdefault(path.with_name(path.name[: -len(ending)]), path)
        if first != path:
            raise DatasetError(
                f"{where} has {first.name} and {path.name}, which may be the same rows twice; move one of them "
                "elsewhere, or put a '_' before its name to have it passed over"
            )
    return finished


def files_at(path: str, endings: Sequence[str], what: str) -> list[Path]:
    """The one file at a path, or the finished files of a folder, or those that a pattern (`*`, `?`, `[…]`) fits.

    Args:
        path: with `~` read already; a file or folder that is there is no pattern, whatever its name.
        endings: of files, in small letters.
        what: such a file is, for messages.

    Raises:
        DatasetError: there is none, or one is no such file.
    """
    found = Path(path)
    if found.is_dir():
        return finished_files(found, endings)
    if not found.exists() and glob.has_magic(path):
        chosen = [Path(each) for each in sorted(glob.glob(path, recursive=True))]
        return _of_a_kind([each for each in chosen if _is_finished(each.name)], endings, f"the pattern {path}")
    if not found.name.lower().endswith(tuple(endings)):
        raise DatasetError(f"{path} is no {what}: expected one that ends in {', '.join(endings)}, or a folder")
    return [found]


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turns what goes wrong while a file is read or decompressed into a DatasetError with its path."""
    try:
        yield
    except FileNotFoundError:
        raise DatasetError(f"{path} does not exist") from None
    except (EOFError, zlib.error, tarfile.TarError, gzip.BadGzipFile, UnicodeDecodeError) as error:
        raise DatasetError(f"{path} is damaged or cut short ({error}); replace it with a fresh copy") from error
    except OSError as error:
        if error.errno is None:  # what bz2 and Arrow's zstd raise
            raise DatasetError(
                f"{path} is damaged, cut short, or not compressed as its name says ({error}); replace it with a fresh "
                "copy, or correct its name"
            ) from error
        raise DatasetError(f"{path} cannot be read: {error}") from error


def read_bytes(path: Path) -> bytes:
    """Content of a file, decompressed if its name ends in .gz.

    Raises:
        DatasetError: it is missing, unreadable, damaged or cut short.
    """
    with reading(path):
        data = path.read_bytes()
        return gzip.decompress(data) if path.suffix.lower() == ".gz" else data


def file_sha256(path: Path) -> str:
    """SHA-256 (64 hex digits) of a file as it lies on disk.

    Raises:
        DatasetError: it cannot be read.
    """
    with reading(path), path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
