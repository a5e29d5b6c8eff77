"""Text as people have it: in any of the usual encodings, cut at line ends only, and tables with quoted fields.

A file is read twice and never held: once to learn its encoding, and whether it is whole; then row by row.
"""

import codecs
import csv
import gzip
import io
import logging
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO, TextIO, cast

from pairflow.datasets.files import reading
from pairflow.errors import DatasetError

logger = logging.getLogger(__name__)

COMPRESSIONS = (".gz", ".zst", ".bz2")
_MARKS = (  # longest first: that of UTF-32 begins as that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_KINDS = (
    (b"\x1f\x8b", "compressed by gzip", "give it a name that ends in .gz"),
    (b"PK\x03\x04", "a ZIP archive, as of Excel", "save the sheet as CSV in UTF-8"),
    (b"BZh", "compressed by bzip2", "give it a name that ends in .bz2"),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd", "give it a name that ends in .zst"),
    (b"\xfd7zXZ", "compressed by xz", "unpack it"),
    (b"PAR1", "a Parquet file", "give it a name that ends in .parquet"),
    (b"ARROW1", "an Arrow file", "give it a name that ends in .arrow"),
)
_HEAD_BYTES = 1 << 16
_CHUNK_BYTES = 1 << 20
_LONGEST_FIELD = 1 << 26
"""Characters; a longer one is taken for what follows a quote that nobody closed. Python's own bound is 128 Ki."""
_SEPARATORS = (",", ";", "\t")  # Excel writes semicolons where the comma is the decimal sign
TextSource = Callable[[], AbstractContextManager[TextIO]]
"""Opens a text anew, from its beginning."""


@contextmanager
def open_bytes(path: Path) -> Iterator[IO[bytes]]:
    """A file's content, decompressed if its name ends in .gz, .zst or .bz2.

    Raises:
        DatasetError: it is missing or unreadable; and, from within the block, damaged or cut short.
    """
    with reading(path):
        kind = path.suffix.lower()
        if kind == ".gz":
            stream = cast(IO[bytes], gzip.GzipFile(path))
        elif kind == ".bz2":
            import bz2

            stream = cast(IO[bytes], bz2.BZ2File(path))
        elif kind == ".zst":
            import pyarrow as pa  # numcodecs' zstd wants the size in the frame's header, which few programs write

            stream = cast(IO[bytes], pa.input_stream(str(path), compression="zstd"))
        else:
            stream = path.open("rb")
        with stream:
            yield stream


def text_source(path: Path) -> TextSource:
    """What opens a text file, decompressed by its name, as a stream with its line ends as they are.

    By its byte order mark, or else UTF-8. What is neither is read as Latin-1, which takes any byte: SMILES are ASCII,
    so at most the names beside them come out wrong.

    Raises:
        DatasetError: it is missing, unreadable, damaged, cut short, or no text: all of it is looked at first.
    """
    encoding = _encoding(path)

    @contextmanager
    def opened() -> Iterator[TextIO]:
        with open_bytes(path) as stream, io.TextIOWrapper(stream, encoding=encoding, newline="") as text:
            yield text

    return opened


def read_head(path: Path) -> str:
    """The first lines of a text file, some 64 KiB of it, with what `text_source` says of what is no text."""
    if path.suffix.lower() == ".gz":
        with reading(path), path.open("rb") as raw:
            unpacked = zlib.decompressobj(wbits=31)  # not to the end of the stream, whose checksum is not in the head
            head = unpacked.decompress(raw.read(_HEAD_BYTES), _HEAD_BYTES)
            if not head and path.stat().st_size and not unpacked.eof:
                raise gzip.BadGzipFile("no gzip data")
    else:
        with open_bytes(path) as stream:
            head = stream.read(_HEAD_BYTES)
    return _decode(head, path, whole=len(head) < _HEAD_BYTES)


def _decode(data: bytes, path: Path, *, whole: bool) -> str:
    encoding = _marked(data, path)
    decoder = codecs.getincrementaldecoder(encoding or "utf-8")()
    if encoding is None and b"\0" in data:
        raise _zero_bytes(path, data[0::2].count(0), data[1::2].count(0), len(data))
    try:
        return decoder.decode(data, final=whole)
    except UnicodeDecodeError as error:
        if encoding is not None:
            raise _not_as_marked(path, encoding, error, error.start) from None
        return data.decode("latin-1")


def _encoding(path: Path) -> str:
    """The encoding of a whole file, which is read for it a chunk at a time."""
    with open_bytes(path) as stream:
        chunk = stream.read(_CHUNK_BYTES)
        marked = _marked(chunk, path)
        decoder = codecs.getincrementaldecoder(marked or "utf-8")()
        found, read, zeros = marked or "utf-8", 0, [0, 0]
        while True:
            if marked is None and b"\0" in chunk:
                zeros[read % 2] += chunk[0::2].count(0)
                zeros[1 - read % 2] += chunk[1::2].count(0)
            if found != "latin-1":
                pending = len(decoder.getstate()[0])
                try:
                    decoder.decode(chunk, final=not chunk)
                except UnicodeDecodeError as error:
                    place = read - pending + error.start
                    if marked is not None:
                        raise _not_as_marked(path, marked, error, place) from None
                    logger.warning("%s is not UTF-8 (byte %d), and is read as Latin-1: save it as UTF-8", path, place)
                    found = "latin-1"
            if not chunk:
                break
            read += len(chunk)
            chunk = stream.read(_CHUNK_BYTES)
    if any(zeros):
        raise _zero_bytes(path, zeros[0], zeros[1], read)
    return found


def _marked(data: bytes, path: Path) -> str | None:
    """The encoding that the first bytes say."""
    for magic, what, remedy in _KINDS:
        if data.startswith(magic):
            raise DatasetError(f"{path} is no text: it is {what}; {remedy}")
    return next((name for mark, name in _MARKS if data.startswith(mark)), None)


def _zero_bytes(path: Path, even: int, odd: int, num_bytes: int) -> DatasetError:
    what = "looks like UTF-16 without a byte order mark" if max(even, odd) > num_bytes // 4 else "holds zero bytes"
    return DatasetError(f"{path} is no text in UTF-8: it {what}; save it as UTF-8")


def _not_as_marked(path: Path, encoding: str, error: UnicodeDecodeError, place: int) -> DatasetError:
    return DatasetError(
        f"{path} begins with the byte order mark of {encoding}, but is not text in it ({error.reason} at byte "
        f"{place:,}); save it as UTF-8"
    )


def lines(text: str | TextIO) -> Iterator[str]:
    r"""Lines of a text, cut at \n, \r\n and \r, and not at whatever else Unicode may call the end of a line."""
    stream = io.StringIO(text, newline="") if isinstance(text, str) else text
    return (line.rstrip("\r\n") for line in stream)


def read_column(source: TextSource, path: Path, column: str | None, default: str) -> Iterator[str]:
    """One column of a table with a header, as it stands; rows that end before it have "" there.

    Args:
        source: of the file.
        path: of the file, for messages.
        column: its name, exactly.
        default: its name where none is given, in capitals or not.

    Raises:
        DatasetError: there is no such column, or several, or a row does not follow the header.
    """
    found = []
    for separator in _separators(path):
        with source() as text:
            header = next(_rows(text, separator, path), [])
        names = [name.strip() for name in header]
        places = _places(names, column, default)
        if len(places) == 1:
            return _fields(source, separator, path, len(header), places[0])
        found.append((len(names), names, len(places)))
    _, names, number = max(found)
    wanted = f"named '{column or default}'"
    if number > 1:
        raise DatasetError(f"{path} has {number} columns {wanted}; columns: {names[:20]}; give each a name of its own")
    raise DatasetError(
        f"{path} has columns {names[:20]}, expected one {wanted}; name the right one as the dataset's column (--column)"
    )


def _separators(path: Path) -> tuple[str, ...]:
    kinds = [suffix.lower() for suffix in path.suffixes]
    if ".csv" in kinds:
        return _SEPARATORS
    return ("\t",) if ".tsv" in kinds else ("\t", *_SEPARATORS, " ")


def _places(names: list[str], column: str | None, default: str) -> list[int]:
    exact = [place for place, name in enumerate(names) if name == (column or default)]
    if exact or column is not None:
        return exact
    return [place for place, name in enumerate(names) if name.lower() == default]


def _rows(text: TextIO, separator: str, path: Path) -> Iterator[list[str]]:
    if separator == " ":  # of any number of blanks, as chemists' .smi files have them
        yield from (line.split() for line in lines(text))
        return
    csv.field_size_limit(_LONGEST_FIELD)
    rows = csv.reader(text, delimiter=separator, strict=True)
    try:
        yield from rows
    except csv.Error as error:
        raise DatasetError(
            f"{path}, line {rows.line_num}, is not CSV: {error}; close the quote that is open there, or leave it out"
        ) from error


def _fields(source: TextSource, separator: str, path: Path, width: int, place: int) -> Iterator[str]:
    with source() as text:
        rows = _rows(text, separator, path)
        next(rows)
        for number, row in enumerate(rows, start=1):
            if not row:  # an empty line is no row of a table
                continue
            if separator != " " and any(row[width:]):
                raise DatasetError(
                    f"{path}: row {number} has {len(row)} fields, the header {width}: put fields that contain "
                    f"{separator!r} between double quotes"
                )
            yield row[place] if place < len(row) else ""
