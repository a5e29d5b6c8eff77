"""Finding local copies of public data and reading them, with errors that name the file."""

import gzip
import hashlib
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
    finished = [folder / name for name in names if not name.startswith((".", "_")) and not name.endswith(_UNFINISHED)]
    expected = ", ".join(endings)
    for path in finished:
        if path.is_dir() or not path.name.lower().endswith(tuple(endings)):
            what = "a folder" if path.is_dir() else f"a file that ends in {path.suffix!r}"
            raise DatasetError(
                f"{path} is {what}, expected only files that end in {expected}; move it elsewhere, or put a '_' before "
                "its name to have it passed over"
            )
    if not finished:
        raise DatasetError(f"the folder {folder} has no finished file; expected some that end in {expected}")
    return finished


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
