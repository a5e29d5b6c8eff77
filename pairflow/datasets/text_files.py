"""Text as people have it: in any of the usual encodings, cut at line ends only, and tables with quoted fields."""

import codecs
import csv
import gzip
import io
import logging
import zlib
from collections.abc import Iterator
from pathlib import Path

from pairflow.datasets.files import read_bytes, reading
from pairflow.errors import DatasetError

logger = logging.getLogger(__name__)

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
    (b"BZh", "compressed by bzip2", "unpack it"),
    (b"\xfd7zXZ", "compressed by xz", "unpack it"),
    (b"PAR1", "a Parquet file", "write the column as CSV"),
)
_HEAD_BYTES = 1 << 16
_SEPARATORS = (",", ";", "\t")  # Excel writes semicolons where the comma is the decimal sign


def read_text(path: Path) -> str:
    """Content of a text file, decompressed if its name ends in .gz.

    By its byte order mark, or else UTF-8. What is neither is read as Latin-1, which takes any byte: SMILES are ASCII,
    so at most the names beside them come out wrong.

    Raises:
        DatasetError: it is missing, unreadable, damaged, cut short, or no text.
    """
    return _decode(read_bytes(path), path)


def read_head(path: Path) -> str:
    """The first lines of a text file, some 64 KiB of it, with what `read_text` says of what is no text."""
    with reading(path), path.open("rb") as raw:
        if path.suffix.lower() == ".gz":
            unpacked = zlib.decompressobj(wbits=31)
            head = unpacked.decompress(raw.read(_HEAD_BYTES), _HEAD_BYTES)
            if not head and path.stat().st_size:
                raise gzip.BadGzipFile("no gzip data")
        else:
            head = raw.read(_HEAD_BYTES)
    return _decode(head, path, whole=len(head) < _HEAD_BYTES)


def _decode(data: bytes, path: Path, *, whole: bool = True) -> str:
    for magic, what, remedy in _KINDS:
        if data.startswith(magic):
            raise DatasetError(f"{path} is no text: it is {what}; {remedy}")
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), None)
    if encoding is None and b"\0" in data:
        lsb, msb = data[0::2].count(0), data[1::2].count(0)
        what = "looks like UTF-16 without a byte order mark" if max(lsb, msb) > len(data) // 4 else "holds zero bytes"
        raise DatasetError(f"{path} is no text in UTF-8: it {what}; save it as UTF-8")
    try:
        return codecs.getincrementaldecoder(encoding or "utf-8")().decode(data, final=whole)
    except UnicodeDecodeError as error:
        if encoding is not None:
            raise DatasetError(
                f"{path} begins with the byte order mark of {encoding}, but is not text in it ({error.reason} at byte "
                f"{error.start:,}); save it as UTF-8"
            ) from None
        logger.warning("%s is not UTF-8 (byte %d), and is read as Latin-1: save it as UTF-8", path, error.start)
        return data.decode("latin-1")


def lines(text: str) -> list[str]:
    r"""Lines of a text, cut at \n, \r\n and \r, and not at whatever else Unicode may call the end of a line."""
    cut = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return cut[:-1] if cut[-1] == "" else cut


def read_column(text: str, path: Path, column: str | None, default: str) -> Iterator[str]:
    """One column of a table with a header, as it stands; rows that end before it have "" there.

    Args:
        text: of the file.
        path: of the file, for messages.
        column: its name, exactly.
        default: its name where none is given, in capitals or not.

    Raises:
        DatasetError: there is no such column, or several, or a row does not follow the header.
    """
    found = []
    for separator in _separators(path):
        header = next(_rows(text, separator, path), [])
        names = [name.strip() for name in header]
        places = _places(names, column, default)
        if len(places) == 1:
            return _fields(text, separator, path, len(header), places[0])
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


def _rows(text: str, separator: str, path: Path) -> Iterator[list[str]]:
    if separator == " ":  # of any number of blanks, as chemists' .smi files have them
        yield from (line.split() for line in lines(text))
        return
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        yield from rows
    except csv.Error as error:
        raise DatasetError(f"{path}, line {rows.line_num}, is not CSV: {error}") from error


def _fields(text: str, separator: str, path: Path, width: int, place: int) -> Iterator[str]:
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
