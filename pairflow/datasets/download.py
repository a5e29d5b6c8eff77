"""Downloads of published files: checksum, progress, and resume after an interruption.

pooch checks the hash and puts the file in its place; what it lacks is a download that goes on where it stopped.
An unfinished download is `<name>.pairflow-part`, which no browser's is called; a file under its own name that has not
passed its checksum was put there by somebody, and is moved aside.
"""

import fcntl
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pairflow.errors import DatasetError
from pairflow.progress import Progress, bar

logger = logging.getLogger(__name__)

_PAUSES_S = (0.5, 2.0, 5.0)  # before each further try of a transfer that broke off
_TIMEOUT_S = (10, 60)  # connect, silence between bytes
_BLOCK_BYTES = 1 << 18


@dataclass(frozen=True)
class RemoteFile:
    """A published file.

    Attributes:
        name: file name, here and in PAIRFLOW_DATA_DIR.
        url: where it is published.
        checksum: `md5:…` or `sha256:…` of its bytes, as its publisher or a well-known mirror lists states it.
    """

    name: str
    url: str
    checksum: str


def fetch(remote: RemoteFile, cache_dir: Path, *, progress: Progress = True) -> Path:
    """Path of the verified file in `cache_dir`, downloaded unless it is there already.

    Raises:
        DatasetError: it cannot be downloaded or stored, or its checksum differs; then no file of that name is left.
    """
    import pooch
    import requests

    pooch.get_logger().setLevel("WARNING")  # its "downloading" lines would double ours and the bar
    by_hand = f"download it by hand, put it in a folder as {remote.name} and set PAIRFLOW_DATA_DIR to that folder"
    part = cache_dir / f"{remote.name}.pairflow-part"
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        with _one_at_a_time(cache_dir / f"{remote.name}.lock"):
            _move_aside(cache_dir / remote.name, remote.checksum)
            while True:
                resumed = part.exists()
                try:
                    return Path(
                        pooch.retrieve(
                            remote.url,
                            remote.checksum,
                            remote.name,
                            cache_dir,
                            downloader=_ResumingDownload(part, progress),
                        )
                    )
                except requests.RequestException:
                    raise  # some are ValueErrors too
                except ValueError as mismatch:
                    # What an earlier call began may be of another release: once more, from the first byte.
                    if not resumed:
                        raise DatasetError(
                            f"{remote.url} is not the published file, and nothing was kept ({mismatch}); "
                            f"try again, or {by_hand}"
                        ) from mismatch
                    logger.warning("%s: the resumed download did not match, starting over", remote.name)
    except (requests.RequestException, _BrokenOffError) as error:
        raise DatasetError(f"{remote.url} could not be downloaded ({error}); try again, or {by_hand}") from error
    except OSError as error:
        raise DatasetError(f"{remote.name} cannot be stored in {cache_dir}: {error}") from error


def _move_aside(path: Path, checksum: str) -> None:
    """Gives a file another name that is not the published one: a new download would lie in its place."""
    import pooch

    algorithm, _, digest = checksum.partition(":")
    if path.exists() and pooch.file_hash(str(path), algorithm) != digest:
        kept = path.with_name(f"{path.name}.not-as-published-{time.time_ns()}")
        path.rename(kept)
        logger.warning("%s is not the published file, and is kept as %s", path, kept)


class _BrokenOffError(Exception):
    """The server was reached, but the file did not come through: worth another try."""


@contextmanager
def _one_at_a_time(path: Path) -> Iterator[None]:
    """Holds a lock file, so that two processes do not write one part; it frees itself if its holder dies."""
    with path.open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


class _ResumingDownload:
    """Downloader for pooch: streams to a part file, goes on with Range, then hands the whole file over."""

    def __init__(self, part: Path, progress: Progress) -> None:
        self.part = part
        self.progress = progress

    def __call__(self, url: str, output_file: Any, pooch: Any) -> None:  # the signature that pooch calls
        logger.info("downloading %s", url)
        for pause in (*_PAUSES_S, None):
            try:
                self._transfer(url)
                break
            except _BrokenOffError as error:
                if pause is None:
                    raise
                logger.warning("%s: %s; again in %g s", url, error, pause)
                time.sleep(pause)
        self.part.replace(output_file)

    def _transfer(self, url: str) -> None:
        """One request: the rest of the file if the server can, else all of it."""
        import requests

        start = self.part.stat().st_size if self.part.exists() else 0
        # identity: a length and a range count the file's own bytes, not those of some encoding on the way.
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
        with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT_S) as response:
            content_range = response.headers.get("Content-Range", "")
            if response.status_code == requests.codes.requested_range_not_satisfiable:
                if content_range == f"bytes */{start}":
                    return  # the part was whole already
                self.part.unlink()
                raise _BrokenOffError(f"the file has no bytes from {start:,} on, starting over")
            response.raise_for_status()
            if response.status_code != requests.codes.partial_content:
                start = 0  # a server that ignores Range sends the file from its first byte
            elif not content_range.startswith(f"bytes {start}-"):
                self.part.unlink()
                raise _BrokenOffError(f"asked for bytes {start}-, got {content_range!r}, starting over")
            self._receive(response, start)

    def _receive(self, response: Any, start: int) -> None:
        """Appends the body to the part from byte `start` on."""
        import urllib3

        size = response.headers.get("Content-Length")
        total = None if size is None else start + int(size)
        shown = bar(
            desc=self.part.stem,
            total=total,
            initial=start,
            unit="B",
            unit_scale=True,
            progress=self.progress,
        )
        with shown, self.part.open("ab" if start else "wb") as stream:
            try:
                for block in response.raw.stream(_BLOCK_BYTES, decode_content=False):
                    stream.write(block)
                    shown.update(len(block))
            except urllib3.exceptions.HTTPError as error:
                raise _BrokenOffError(f"the transfer broke off ({error})") from error
