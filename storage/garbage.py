"""What of a store nobody needs any more, and its removal: of files that are ours by what they say, and no others."""

import contextlib
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from storage.documents import HEADER, MANIFEST
from storage.filesystem import LocalFolder, open_folder
from storage.inventory import Inventory, PreparedData
from storage.ownership import is_temporary

Kind = Literal["temporary", "job", "partial", "unreferenced"]
LONGEST_WAIT_S = 30 * 24 * 3600.0
"""A job may wait so long for a GPU that others hold; until it begins, it writes nothing beside its request."""


@dataclass(frozen=True)
class Garbage:
    """Files that can go together.

    Attributes:
        kind: temporary: of a killed writer. job: what a flow and its job told each other. partial: a coupling or
            prepared data that was never committed. unreferenced: what was, and that nobody asked for.
        url: what they are, or belong to.
        names: of the files, relative to the store, in the order of their removal.
        num_bytes: of all of them.
        fingerprint: of the coupling, where all of it would go; None of prepared data, which can be made again.
    """

    kind: Kind
    url: str
    names: tuple[str, ...]
    num_bytes: int
    fingerprint: str | None = None


def find_garbage(
    inventory: Inventory,
    *,
    older_than_s: float,
    needed: Iterable[str] | None = None,
    now: float | None = None,
) -> list[Garbage]:
    """What nobody has written to for a while and nobody needs.

    Args:
        inventory: of the store.
        older_than_s: seconds since the last write; whoever is at work writes more often than that. A job that has left
            neither result nor error may wait to begin, and is kept for LONGEST_WAIT_S.
        needed: fingerprints of the committed couplings to keep, and digests of the data to keep prepared, besides
            those that couplings in the store were made of; None keeps all.
        now: Unix time; default the present.
    """
    present = time.time() if now is None else now
    return list(_find(inventory, present, older_than_s, None if needed is None else set(needed)))


def _find(inventory: Inventory, now: float, older_than_s: float, needed: set[str] | None) -> Iterator[Garbage]:
    before = now - older_than_s
    for job in inventory.jobs:
        waits = job.state == "unfinished"
        if job.modified < (min(before, now - LONGEST_WAIT_S) if waits else before):
            yield Garbage("job", job.url, tuple(job.files), job.num_bytes)
    for data in inventory.datasets:
        yield from _of_dataset(data, inventory, before, needed)
    for coupling in inventory.couplings:
        whole: Kind | None = None
        if coupling.modified < before and coupling.state == "partial":
            whole = "partial"
        elif coupling.modified < before and coupling.state == "complete" and needed is not None:
            whole = None if coupling.fingerprint in needed else "unreferenced"
        if whole is not None:
            names = tuple(sorted(coupling.own, key=_order_of_removal))
            num_bytes = sum(coupling.files[name].num_bytes for name in names)
            yield Garbage(whole, coupling.url, names, num_bytes, coupling.fingerprint)
            continue
        left = [name for name in coupling.own if is_temporary(name) and coupling.files[name].modified < before]
        if left:
            yield Garbage("temporary", coupling.url, tuple(left), sum(coupling.files[name].num_bytes for name in left))


def _of_dataset(data: PreparedData, inventory: Inventory, before: float, needed: set[str] | None) -> Iterator[Garbage]:
    whole: Kind | None = None
    if data.modified < before and data.state == "partial":
        whole = "partial"
    elif data.modified < before and data.state == "complete" and needed is not None:
        made_of_it = {str(each.header.dataset.get("digest")) for each in inventory.couplings if each.header is not None}
        unread = any(each.header is None for each in inventory.couplings)  # which may have been made of it too
        whole = None if unread or not data.digests.isdisjoint(needed | made_of_it) else "unreferenced"
    names = [name for name in data.own if whole or (is_temporary(name) and data.files[name].modified < before)]
    if names:
        names.sort(key=_order_of_removal)
        num_bytes = sum(data.files[name].num_bytes for name in names)
        yield Garbage(whole or "temporary", data.url, tuple(names), num_bytes)


def _order_of_removal(name: str) -> int:
    """A removal that is broken off leaves a partial coupling behind: the manifest goes first, the header last."""
    file = name.rpartition("/")[2]
    return -1 if file == MANIFEST else int(file == HEADER)


def remove(store_url: str | os.PathLike[str], garbage: Garbage) -> None:
    """Removes files, and the folders that are empty without them.

    Raises:
        StoreError: the store cannot be written.
    """
    folder = open_folder(store_url)
    for name in garbage.names:
        folder.delete(name)
    if isinstance(folder, LocalFolder):
        parents = {parent for name in garbage.names for parent in Path(name).parents[:-2]}
        for parent in sorted(parents, key=lambda path: -len(path.parts)):
            with contextlib.suppress(OSError):  # it holds something else, or is gone
                (Path(folder.url) / parent).rmdir()
