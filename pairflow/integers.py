"""Whole numbers that people give: of Python's and numpy's types alike, and Python's from there on.

May import `errors` of the library; all of it may import this.
"""

import operator
from typing import Any

import numpy as np

from pairflow.errors import SpecError


def check_integer(value: Any, name: str, smallest: int, largest: int | None = None) -> int:
    """A whole number within its range; True is none, and neither is 4.0.

    Raises:
        SpecError: something else.
    """
    limits = f"at least {smallest}" if largest is None else f"{smallest} to {_shown(largest)}"
    try:
        if isinstance(value, bool | np.bool_):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise SpecError(f"{name}: got {value!r}, expected a whole number, {limits}") from None
    if number < smallest or (largest is not None and number > largest):
        raise SpecError(f"{name}: got {number}, expected {limits}")
    return number


def _shown(number: int) -> str:
    return "2^32" if number == 2**32 else f"{number:,}"
