"""Reading several shards of a coupling at a time: a store may be far away, where each answer takes tens of ms."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Found = TypeVar("Found")

READERS = 8
"""Documents, or shards, that are asked for at a time."""


def in_order(find: Callable[[Item], Found], items: Iterable[Item]) -> Iterator[Found]:
    """`map`, by threads that are a few items ahead, and no more: what was found and not yet asked for is held.

    What `find` raises for an item is raised in that item's turn, and nothing further is begun.
    """
    with ThreadPoolExecutor(READERS, thread_name_prefix="shards") as pool:
        begun: deque[Future[Found]] = deque()
        try:
            for item in items:
                begun.append(pool.submit(find, item))
                if len(begun) == READERS:
                    yield begun.popleft().result()
            while begun:
                yield begun.popleft().result()
        finally:
            for each in begun:
                each.cancel()
