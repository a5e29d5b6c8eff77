"""One folder on any filesystem, with the few operations that the store's guarantees rest on.

Every write is of a whole file and atomic: a name holds its old bytes or its new ones, never a part. On local disks that
is a temporary file, fsync, rename; on the rest it is the put of the object store. `settle` syncs the folders: once
for all files of a coupling before its manifest, which must not outlive their names. There is no operation to list a
folder, so nothing depends on listings being consistent.
"""

import contextlib
import errno
import os
import re
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

from pairflow.errors import StoreError

_SECRET_IN_URL = re.compile(r"://[^/@]*:[^/@]*@")
_OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "oss", "r2"})
"""fsspec's names of filesystems with buckets, in which there are no folders to make."""
_REMEDIES = {
    errno.ENOENT: "make the bucket or folder that it lies in, or choose another store",
    errno.ENOSPC: "free some space and run again: finished shards are kept",
    errno.EDQUOT: "free some of the quota and run again: finished shards are kept",
    errno.EACCES: "choose a store that this user may write, or change the permissions",
    errno.EPERM: "choose a store that this user may write, or change the permissions",
    errno.EROFS: "choose a store on a disk that is not mounted read-only",
    errno.ENOTDIR: "a file lies where a folder is needed: move it away, or choose another store",
    errno.EEXIST: "a file lies where a folder is needed: move it away, or choose another store",
    errno.EISDIR: "a folder lies where a file is needed: move it away, or choose another store",
    errno.ENAMETOOLONG: "choose a store with a shorter path",
}


class Folder(ABC):
    """The files below one URL; names are relative, with forward slashes."""

    def __init__(self, url: str) -> None:
        self.url = url

    @abstractmethod
    def path(self, name: str) -> str:
        """Where a file lies, for messages."""

    @abstractmethod
    def read(self, name: str) -> bytes | None:
        """The whole file, or None if there is none."""

    @abstractmethod
    def size(self, name: str) -> int | None:
        """Size in bytes, or None if there is no such file."""

    @abstractmethod
    def write(self, name: str, data: bytes) -> None:
        """Puts a whole file, atomically, over whatever was there."""

    def write_all(self, files: Mapping[str, bytes]) -> None:
        """Puts several whole files as `write` does, at the same time, so that their waits for the disk are one.

        When one cannot be written the others may be there.
        """
        with ThreadPoolExecutor(len(files)) as pool:
            for _ in pool.map(self.write, files.keys(), files.values()):
                pass

    @abstractmethod
    def create(self, name: str, data: bytes) -> bool:
        """Like `write`, but leaves an existing file alone; False if there was one: the first writer wins."""

    @abstractmethod
    def delete(self, name: str) -> None:
        """Removes a file; none to remove is fine."""

    @abstractmethod
    def settle(self, names: Iterable[str]) -> None:
        """Sees to it that a power cut does not take back the names of files that were written."""


def open_folder(url: str | os.PathLike[str]) -> Folder:
    """The folder at a plain path or fsspec URL; nothing is touched yet.

    Raises:
        StoreError: the URL is empty or relative, carries a password, or its filesystem is unknown or not installed.
    """
    url = os.fspath(url)
    if not url.strip() or "\0" in url:
        raise StoreError(
            f"the store's URL is {'empty' if not url.strip() else 'not a path (it holds a zero byte)'}; give a folder "
            "such as ~/.pairflow/store, or an fsspec URL such as s3://bucket/store"
        )
    try:
        os.fsencode(url)
    except UnicodeEncodeError as error:  # half of a surrogate pair, as from JSON
        raise StoreError(f"the store's URL {url!r} is no path: {error}; correct it") from None
    if _SECRET_IN_URL.search(url):
        raise StoreError(
            "the store's URL carries a password, which would end up in logs; leave it out and give credentials "
            "through the environment or fsspec's configuration"
        )
    if url.startswith(("file:", "local:")):
        return LocalFolder(_path_of_file_url(url))
    return RemoteFolder(url) if "://" in url else LocalFolder(url)


def _path_of_file_url(url: str) -> str:
    """The path of a file: URL; what fsspec reads below the working folder is refused, as jobs have another one."""
    scheme, _, rest = url.partition(":")
    rest = rest.removeprefix("//localhost") if rest.startswith("//localhost/") else rest
    path = unquote(rest[2:] if rest.startswith("//") else rest)
    if not path.startswith("/"):
        raise StoreError(
            f"the URL {url} is relative, or of another machine: after {scheme}:// comes a machine's name; write "
            f"{scheme}:///… and an absolute path, or the path alone"
        )
    return path


class LocalFolder(Folder):
    """A folder on a local or mounted disk."""

    def __init__(self, path: str) -> None:
        self._root = Path(os.path.abspath(os.path.expanduser(path)))
        super().__init__(str(self._root))

    def path(self, name: str) -> str:
        return str(self._root / name)

    def read(self, name: str) -> bytes | None:
        with _reported("read", self.path(name)):
            try:
                return (self._root / name).read_bytes()
            except FileNotFoundError:
                return None

    def size(self, name: str) -> int | None:
        with _reported("read", self.path(name)):
            try:
                return (self._root / name).stat().st_size
            except FileNotFoundError:
                return None

    def write(self, name: str, data: bytes) -> None:
        path = self._root / name
        with _reported("write", str(path)), _temporary(path, data) as temporary:
            os.replace(temporary, path)

    def create(self, name: str, data: bytes) -> bool:
        path = self._root / name
        with _reported("write", str(path)), _temporary(path, data) as temporary:
            try:
                os.link(temporary, path)  # unlike a rename, fails if the name is taken
            except FileExistsError:
                return False
            except OSError:  # a filesystem without hard links
                if path.exists():
                    return False
                os.replace(temporary, path)
            _sync_folder(path.parent)
            return True

    def delete(self, name: str) -> None:
        with _reported("delete", self.path(name)):
            (self._root / name).unlink(missing_ok=True)

    def settle(self, names: Iterable[str]) -> None:
        for parent in sorted({(self._root / name).parent for name in names}):
            with _reported("write", str(parent)):
                _sync_folder(parent)


class RemoteFolder(Folder):
    """A folder of any fsspec filesystem; object stores put atomically, and that is what is relied on."""

    def __init__(self, url: str) -> None:
        import fsspec

        bare = url.rstrip("/")
        # memory:// is a filesystem's root, and memory: a folder on this disk.
        super().__init__(f"{bare}//" if bare.endswith(":") and url.startswith(f"{bare}//") else bare)
        try:
            self._filesystem, self._root = fsspec.core.url_to_fs(self.url)
        except (ValueError, ImportError, OSError) as error:
            raise StoreError(
                f"the store {self.url} cannot be opened: {error}; give a plain path, or the URL of a filesystem that "
                "fsspec knows and whose package is installed (s3:// needs s3fs, gs:// gcsfs)"
            ) from error

        protocols = self._filesystem.protocol
        self._has_buckets = not _OBJECT_STORES.isdisjoint([protocols] if isinstance(protocols, str) else protocols)
        if self._has_buckets and not self._root.partition("/")[0]:
            raise StoreError(f"the store's URL {url} names no bucket, expected one such as s3://bucket/store; add it")

    def path(self, name: str) -> str:
        return f"{self.url}/{name}"

    def _key(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"

    def read(self, name: str) -> bytes | None:
        with _reported("read", self.path(name), remote=True):
            try:
                return self._filesystem.cat_file(self._key(name))
            except FileNotFoundError:
                return None

    def size(self, name: str) -> int | None:
        with _reported("read", self.path(name), remote=True):
            # What another process wrote a moment ago must be seen: no listing cache.
            self._filesystem.invalidate_cache(self._filesystem._parent(self._key(name)))
            try:
                return self._filesystem.info(self._key(name))["size"]
            except FileNotFoundError:
                return None

    def write(self, name: str, data: bytes) -> None:
        with _reported("write", self.path(name), remote=True):
            self._pipe(name, data)

    def create(self, name: str, data: bytes) -> bool:
        # Atomic where fsspec's filesystem has a conditional put (S3 does); elsewhere a look, then a put.
        if self.size(name) is not None:
            return False
        with _reported("write", self.path(name), remote=True):
            try:
                self._pipe(name, data, mode="create")
            except FileExistsError:
                if self.size(name) is None:
                    raise
                return False
            return True

    def _pipe(self, name: str, data: bytes, **options: Any) -> None:
        try:
            self._filesystem.pipe_file(self._key(name), data, **options)
        except FileNotFoundError:
            if self._has_buckets:  # it would make the bucket: one that is not there is a mistake in the URL
                raise
            self._filesystem.makedirs(self._filesystem._parent(self._key(name)), exist_ok=True)
            self._filesystem.pipe_file(self._key(name), data, **options)

    def delete(self, name: str) -> None:
        with _reported("delete", self.path(name), remote=True), contextlib.suppress(FileNotFoundError):
            self._filesystem.rm_file(self._key(name))

    def settle(self, names: Iterable[str]) -> None:
        pass  # a put that has returned lasts


@contextlib.contextmanager
def _temporary(path: Path, data: bytes) -> Iterator[Path]:
    """A synced hidden file beside `path` with these bytes; gone afterwards, whatever happens."""
    _make_folder(path.parent)
    # Plain readers skip names with a dot: a leftover of a killed writer is invisible to them.
    temporary = path.parent / f".{path.name}.{uuid.uuid4().hex}.tmp"
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _make_folder(path: Path) -> None:
    """Makes a folder and its parents, each one's name synced: a manifest must not outlive its shards' folder."""
    if path.is_dir():
        return
    if path.parent != path:
        _make_folder(path.parent)
    try:
        path.mkdir()
    except FileExistsError:
        if not path.is_dir():  # else another writer was quicker
            raise
    _sync_folder(path.parent)


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _reported(verb: str, path: str, *, remote: bool = False) -> Iterator[None]:
    """Turns what a filesystem raises into a StoreError with the path and a remedy."""
    try:
        yield
    except OSError as error:
        implied = {FileExistsError: errno.EEXIST, FileNotFoundError: errno.ENOENT}  # fsspec's often have no number
        code = error.errno or implied.get(type(error))
        remedy = _REMEDIES.get(code or 0, "check that the store can be reached and written")
        raise StoreError(f"cannot {verb} {path}: {error.strerror or error}; {remedy}") from error
    except Exception as error:
        if not remote:
            raise
        # Clients of object stores raise types of their own (no credentials, no such bucket, no answer).
        raise StoreError(
            f"cannot {verb} {path}: {type(error).__name__}: {error}; check that the store can be reached and that its "
            "credentials are set in the environment"
        ) from error


def join(url: str | os.PathLike[str], *names: str) -> str:
    """URL of something below `url`; local paths come back absolute, so that they mean the same in every process."""
    return open_folder(url).path(str(PurePosixPath(*names)))
