"""Reading ahead: the items' order, a bounded lead, and a fault in its own item's turn."""

import threading
from collections.abc import Iterator

import pytest

from storage.ahead import READERS, in_order


def test_the_order_is_that_of_the_items_whoever_ends_first() -> None:
    last_began = threading.Event()

    def find(item: int) -> int:
        if item == 0:  # the first ends after the last that may have begun
            assert last_began.wait(60)
        elif item == READERS - 1:
            last_began.set()
        return -item

    assert list(in_order(find, range(50))) == [-item for item in range(50)]
    assert list(in_order(find, [])) == []


def test_no_more_is_held_than_was_said() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for item in range(100):
            taken.append(item)
            yield item

    found = in_order(str, items())
    for asked in range(100):
        assert next(found) == str(asked)
        assert len(taken) <= asked + READERS


def test_a_fault_is_raised_in_its_turn_and_ends_it() -> None:
    tried: list[int] = []

    def find(item: int) -> int:
        tried.append(item)
        if item == 5:
            raise ValueError("item 5")
        return item

    found = in_order(find, range(1000))
    assert [next(found) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="item 5"):
        next(found)
    assert max(tried) < 5 + 2 * READERS
    with pytest.raises(StopIteration):
        next(found)
