"""Whether a data set is still the one that was read: by its files' places, sizes and times, and by what reads them.

Reading rows takes seconds and loads heavy libraries; this takes milliseconds. It errs on one side only: files that were
copied, touched or added beside the others count as changed, and the rows have to be read to know that they are not.
"""

import functools
import glob
import hashlib
import importlib.metadata
import os
import platform
import stat
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from pairflow.datasets.files import Sources, packaged
from pairflow.datasets.molecules import nci_file
from pairflow.datasets.remote import is_remote
from pairflow.errors import PairFlowError
from pairflow.paths import user_path
from pairflow.spec import DatasetSpec, canonical_json

_LIBRARIES = ("numpy", "pandas", "pyarrow", "rdkit", "scikit-learn", "zarr")  # whose releases decide about rows
_FOLDERS = ("cifar-10-batches-bin",)  # of published data that lie in a folder of their own
_MOST_FILES = 10_000
_SETTLED_S = 2.0


def identity(spec: DatasetSpec, sources: Sources) -> str | None:
    """What decides about a data set's rows, as far as it shows from outside (64 hex digits).

    A file is known by its path, inode, size, and the times of its content and of its inode; no program sets the last
    one. Whatever lies in the data folder counts, as a copy that is put there is read instead of a download.

    Returns:
        The same as long as nothing has changed. None where that cannot be said: there is nothing, there is too much, or
        it was changed so recently that another change might not show.
    """
    try:
        files = [_described(path) for path in _files(spec, sources)]
    except (OSError, PairFlowError):
        return None
    if not files or len(files) > _MOST_FILES or _changed_last(files) > time.time_ns() - _SETTLED_S * 1e9:
        return None
    what = {"spec": spec.model_dump(mode="json"), "reader": _reader(), "files": files}
    return hashlib.sha256(canonical_json(what).encode()).hexdigest()


def _files(spec: DatasetSpec, sources: Sources) -> Iterator[Path]:
    """Whatever may decide about the rows: files, and the folders that say which files there are."""
    if spec.name == "nci":
        yield nci_file()
        return
    if files := packaged(spec.name):
        yield from files
        return
    if spec.path is not None:
        if is_remote(spec.path):
            return  # another machine's clock and disk: what is there is asked when it is wanted
        path = user_path(spec.path)
        if not path.exists() and glob.has_magic(str(path)):
            yield from map(Path, sorted(glob.glob(str(path), recursive=True)))
        yield from _below(path)
        if spec.vocab_path is not None:
            yield user_path(spec.vocab_path, "vocab_path")
        return
    for place in (sources.data_dir, sources.cache_dir):
        if place is not None and place.is_dir():
            yield from sorted(each for each in place.iterdir() if each.is_file())
            for name in _FOLDERS:
                yield from _below(place / name)


def _below(path: Path) -> Iterator[Path]:
    """A file, or all that is in a folder; nothing if neither is there."""
    if path.is_dir():
        for number, each in enumerate(sorted(path.rglob("*"))):
            if number > _MOST_FILES:
                raise OSError(f"{path} holds too many files to look at")
            yield each
    elif path.exists():
        yield path


_Described = tuple[str, int, int, int, int, int]


def _described(path: Path) -> _Described:
    known = path.stat()
    size = 0 if stat.S_ISDIR(known.st_mode) else known.st_size
    return os.path.realpath(path), known.st_dev, known.st_ino, size, known.st_mtime_ns, known.st_ctime_ns


def _changed_last(files: Iterable[_Described]) -> int:
    return max(max(modified, changed) for *_, modified, changed in files)


@functools.cache
def _reader() -> dict[str, str]:
    """What makes rows of files: this library's code, as it is on disk, and the releases of what it stands on."""
    code = hashlib.sha256()
    library = Path(__file__).parents[1]
    for path in sorted([*library.glob("*.py"), *library.glob("datasets/*.py")]):
        code.update(f"{path.name} ".encode() + hashlib.sha256(path.read_bytes()).digest())
    found = {"code": code.hexdigest(), "python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "-"
    return found
