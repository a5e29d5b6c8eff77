"""What the command line writes to: terminals, pipes and files of any encoding and width."""

import codecs
import os
import sys

_NARROWEST = 20  # columns; below that no word of a help text fits


def prepare() -> None:
    """Lets every character be written, and text have some width, whatever the environment says."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            ascii_only = codecs.lookup(stream.encoding).name == "ascii"  # as in the C locale, where UTF-8 is meant
            stream.reconfigure(encoding="utf-8" if ascii_only else None, errors="backslashreplace")
    columns = os.environ.get("COLUMNS", "")
    if columns and not (columns.isdecimal() and int(columns[:9]) >= _NARROWEST):
        del os.environ["COLUMNS"]
