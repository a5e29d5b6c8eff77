"""Paths and URLs as people give them, made to mean the same in every process: absolute, or refused with the reason.

A flow's jobs run in another folder, on another machine perhaps. So this is asked once, at the door: of options by the
command line, of variables by the settings.
"""

import os
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pairflow.errors import SpecError
from pairflow.paths import user_path

_FILE_SCHEMES = ("file", "local")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://|(file|local):(?=/)")
_SQLITE = re.compile(r"(sqlite(?:\+\w+)?)://(.*)", re.DOTALL)


def absolute_path(path: str | os.PathLike[str], name: str = "the path") -> Path:
    """A plain path, absolute; `~` is a home.

    Args:
        path: as it was given; relative to the working folder.
        name: what gave it, for messages.

    Raises:
        SpecError: as `user_path`, or the working folder is gone.
    """
    if not os.fspath(path).strip():
        raise SpecError(f"{name} is empty; give a path")
    expanded = user_path(path, name)
    try:
        return expanded.absolute()
    except OSError as error:
        raise SpecError(
            f"{name} {path} is relative to the working folder, which is gone or closed to you ({error.strerror}); "
            "change to another folder, or give an absolute path"
        ) from None


def absolute_url(url: str, name: str = "the path") -> str:
    """A plain path or an fsspec URL that means the same wherever it is read; local ones come back as absolute paths.

    Raises:
        SpecError: as `absolute_path`; a file: URL that is relative or of another machine; memory of one process.
    """
    *around, url = url.split("::") if "://" in url else [url]  # fsspec's chains: what is local in one comes last
    if around:
        within = absolute_url(url, name)
        return "::".join([*around, within if _SCHEME.match(within) else f"file://{within}"])
    match = _SCHEME.match(url)
    if match is None:
        for scheme in _FILE_SCHEMES:
            if url.startswith(f"{scheme}:"):
                raise SpecError(
                    f"{name} {url} is relative; write {scheme}:///… with an absolute path, or the path alone"
                )
        return str(absolute_path(url, name))
    scheme = (match[1] or match[2]).lower()
    if scheme in _FILE_SCHEMES:
        return str(_of_file_url(url, name))
    if scheme == "memory":
        raise SpecError(f"{name} {url} is the memory of one process, which its jobs do not see; give a folder")
    if any(ord(each) < 32 for each in url):
        raise SpecError(f"{name} {url!r} holds a control character; quote it in the URL (a line break is %0A)")
    return url


def absolute_tracking_uri(uri: str) -> str:
    """MLflow's tracking URI; SQLite's path in it absolute.

    Raises:
        SpecError: a database that is gone with its process, or files, which MLflow 3 keeps no history in.
    """
    name = "MLFLOW_TRACKING_URI"
    if match := _SQLITE.fullmatch(uri):
        return _absolute_sqlite(match[1], match[2], name)
    scheme = (match[1] or match[2]).lower() if (match := _SCHEME.match(uri)) else ""
    if uri in ("databricks", "databricks-uc", "uc") or (scheme and scheme not in _FILE_SCHEMES):
        return uri
    raise SpecError(
        f"{name} {uri}: MLflow keeps no history in plain files any more; give http://… of a server, "
        f"sqlite:///{_shown(uri)}.db, or unset it to use SQLite under PAIRFLOW_HOME"
    )


def resolved_home(home: Path) -> Path:
    """PAIRFLOW_HOME as all its processes know it: the folder itself, whichever link leads there.

    Raises:
        SpecError: no folder can be that, or its name cannot stand in the addresses of the databases in it.
    """
    path = absolute_path(home, "PAIRFLOW_HOME")
    try:
        path = path.resolve()
    except (OSError, RuntimeError) as error:  # a loop of links, a name too long, a folder that is closed
        raise SpecError(f"PAIRFLOW_HOME {path} leads nowhere: {error}; name a folder that can be written") from None
    if unfit := sorted({each for each in str(path) if each in "?%#" or not each.isprintable()}):
        raise SpecError(
            f"PAIRFLOW_HOME {str(path)!r} holds {', '.join(map(repr, unfit))}, which the addresses of its databases "
            "cannot hold; name another folder, or reach this one by a mount"
        )
    return path


def make_home(home: Path) -> None:
    """Makes PAIRFLOW_HOME.

    Raises:
        SpecError: it cannot be made.
    """
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SpecError(
            f"PAIRFLOW_HOME: the folder {home} cannot be made: {error}; name one that can be written"
        ) from error


def sqlite_url(path: Path) -> str:
    """SQLAlchemy's URL of a database file."""
    return f"sqlite:///{path}"


def sqlite_path(uri: str) -> Path | None:
    """The database file of such a URL; None if it is another kind."""
    match = _SQLITE.fullmatch(uri)
    return None if match is None else Path(match[2].partition("?")[0].removeprefix("/"))


def _absolute_sqlite(scheme: str, rest: str, name: str) -> str:
    path, mark, query = rest.partition("?")
    if not path.startswith("/") or path == "/" or ":memory:" in path:
        raise SpecError(
            f"{name} {scheme}://{rest} names no file (three slashes, then its path), so the history would end with "
            "its process; write sqlite:///mlflow.db, or unset it to use SQLite under PAIRFLOW_HOME"
        )
    if path.startswith("/file:"):
        raise SpecError(f"{name} {scheme}://{rest}: write the path itself instead of a file: URL within it")
    return f"{scheme}:///{absolute_path(path[1:], name)}{mark}{query}"


def _of_file_url(url: str, name: str) -> Path:
    scheme, separator, rest = url.partition("://")
    if not separator:
        return absolute_path(unquote(url.partition(":")[2]), name)
    host, slash, path = rest.partition("/")
    if host not in ("", "localhost", "127.0.0.1"):
        raise SpecError(
            f"{name} {url} is {'relative' if not slash else f'a file of the machine {host!r}'}: after {scheme}:// "
            f"comes a machine's name; write {scheme}:///… with an absolute path, or the path alone"
        )
    return absolute_path(f"/{unquote(path)}", name)


def _shown(uri: str) -> str:
    return urlsplit(uri).path or "mlflow"
