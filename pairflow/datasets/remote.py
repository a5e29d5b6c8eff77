"""Your own files at a URL that fsspec knows, such as s3://bucket/rows.csv: copied to this disk, and read there."""

import glob
import hashlib
import json
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any

from pairflow.errors import DatasetError
from pairflow.paths import user_path

_SECRET = re.compile(r"://[^/@]*:[^/@]*@")
_KNOWN = ".known.json"


def is_remote(path: str) -> bool:
    """Whether a path is a URL, of files that are not on this machine's disks as far as it says."""
    return "://" in path


def source_name(path: str) -> str:
    """What rows at a path of your own are said to be of: the URL, or the path with `~` read."""
    return path if is_remote(path) else str(user_path(path))


def local_path(path: str, cache_dir: Path) -> Path:
    """Where files are read: a path as it is, with `~` read; of a URL, the copy in `cache_dir`, brought up to date.

    What fsspec says of a file (size, time, ETag) decides whether it is copied again. A folder is copied whole, and of a
    pattern what it fits, into a folder; of a pattern of folders they are kept, and it is the pattern of the copies.

    Raises:
        DatasetError: there is nothing, it cannot be read, or it changed while it was copied.
    """
    if not is_remote(path):
        return user_path(path)
    if _SECRET.search(path):
        raise DatasetError(
            "the data's URL carries a password, which would end up in logs; leave it out and give credentials through "
            "the environment or fsspec's configuration"
        )
    try:
        return _copied(path, cache_dir / "remote" / hashlib.sha256(path.encode()).hexdigest()[:16])
    except DatasetError:
        raise
    except FileNotFoundError:
        raise DatasetError(f"{path} does not exist") from None
    except Exception as error:  # clients of object stores raise types of their own
        raise DatasetError(
            f"{path} cannot be read: {type(error).__name__}: {error}; check that it can be reached, that fsspec knows "
            "its filesystem (s3:// needs s3fs), and that credentials are set in the environment"
        ) from error


def _copied(url: str, folder: Path) -> Path:
    import fsspec

    filesystem, root = fsspec.core.url_to_fs(url)
    filesystem.invalidate_cache()
    root = root.rstrip("/")
    found = place = folder / PurePosixPath(root).name
    folders: set[Path] = set()
    if glob.has_magic(root) and not filesystem.exists(root):
        fixed, varying = _divided(root)
        found = place = folder / "pattern"
        fitting = filesystem.glob(root, detail=True)
        folders = {place / name.removeprefix(fixed) for name, info in fitting.items() if info["type"] == "directory"}
        wanted = {place / name.removeprefix(fixed): name for name in fitting}
        wanted = {path: name for path, name in wanted.items() if path not in folders}
        if "/" in varying or "**" in varying:
            found = Path(glob.escape(str(place)), varying)
    elif filesystem.isdir(root):
        wanted = {place / name[len(root) + 1 :]: name for name in filesystem.find(root)}
    else:
        wanted = {place: root}
    if not wanted and not folders:
        raise DatasetError(f"{url} holds no file")
    if outside := next((name for path, name in wanted.items() if ".." in path.relative_to(folder).parts), None):
        raise DatasetError(f"{url}: {outside} would be copied to a place outside of the cache; rename it without '..'")
    folder.mkdir(parents=True, exist_ok=True)
    known = _read(folder / _KNOWN)
    there: dict[str, str] = {}
    for path, name in wanted.items():
        key = there[str(path)] = filesystem.ukey(name)
        if known.get(str(path)) != key or not path.is_file():
            with _put_at(path, folder) as partial:
                filesystem.get_file(name, str(partial))
                filesystem.invalidate_cache()
                if filesystem.ukey(name) != key:
                    raise DatasetError(f"{url}: {name} was changed while it was copied; wait until it is complete")
    for path in sorted(place.rglob("*"), reverse=True):  # what is in a folder before it
        if path.is_file() and path not in wanted:
            path.unlink(missing_ok=True)
        elif path.is_dir():
            with suppress(OSError):  # it holds something
                path.rmdir()
    for path in folders:
        path.mkdir(parents=True, exist_ok=True)  # who reads the copies refuses it, as one on a disk
    with _put_at(folder / _KNOWN, folder) as partial:
        partial.write_text(json.dumps(there))
    return found


def _divided(pattern: str) -> tuple[str, str]:
    """A pattern's folders without magic, with a slash at their end, and what comes below them."""
    parts = pattern.split("/")
    first = next(number for number, part in enumerate(parts) if glob.has_magic(part))
    return "".join(f"{part}/" for part in parts[:first]), "/".join(parts[first:])


@contextmanager
def _put_at(path: Path, folder: Path) -> Iterator[Path]:
    """A name in `folder` to write to, of this call alone; the file gets its own if all goes well, else it is removed.

    It lies beside the copies, as another process that copies the same URL removes what does not belong to them.
    """
    partial = folder / f".{uuid.uuid4().hex}.partial"
    try:
        yield partial
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _read(path: Path) -> dict[str, Any]:
    """What was copied; nothing where that cannot be said."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
