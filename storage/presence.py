"""Whether the files of a committed coupling are there, by a listing: cheap where `verify_pairs` reads every byte."""

import os
from dataclasses import dataclass

from storage.filesystem import open_folder
from storage.inventory import list_files
from storage.manifest import Manifest, StoredObject


@dataclass(frozen=True)
class AbsentFile:
    """A file that a manifest names and that is not there as it was written."""

    index: int | None
    """Of its shard; None for a file of the whole coupling."""
    path: str
    reason: str
    """missing, or another size."""


def absent_files(url: str | os.PathLike[str], manifest: Manifest) -> list[AbsentFile]:
    """The shards' files and the metadata that are missing, or have another size than was written.

    Raises:
        StoreError: the folder cannot be listed.
    """
    folder = open_folder(url)
    there = list_files(folder.url)
    named: list[tuple[int | None, StoredObject]] = [(None, each) for each in manifest.metadata]
    named += [(shard.index, each) for shard in manifest.shards for each in shard.objects]
    absent = []
    for index, each in named:
        path = folder.path(each.name)
        if each.name not in there:
            absent.append(AbsentFile(index, path, "missing"))
        elif (size := there[each.name].num_bytes) != each.num_bytes:
            absent.append(AbsentFile(index, path, f"{size:,} bytes, expected {each.num_bytes:,}"))
    return absent
