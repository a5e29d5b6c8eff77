"""What the command line writes to: terminals, pipes and files of any encoding and width."""

import codecs
import os
import sys

_NARROWEST = 20  # columns; below that no word of a help text fits


def prepare() -> None:
    """Lets every character be written, and text have some width, whatever the environment says.

    A stream that is closed, as a daemon's may be, is /dev/null instead. Else the next file to be opened would take its
    place, and what is printed would be written into that.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
            os.set_inheritable(null, True)  # for the processes that are started here
            setattr(sys, name, os.fdopen(null, "w" if number else "r"))
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            ascii_only = codecs.lookup(stream.encoding).name == "ascii"  # as in the C locale, where UTF-8 is meant
            stream.reconfigure(encoding="utf-8" if ascii_only else None, errors="backslashreplace")
    columns = os.environ.get("COLUMNS", "")
    if columns and not (columns.isdecimal() and int(columns[:9]) >= _NARROWEST):
        del os.environ["COLUMNS"]
