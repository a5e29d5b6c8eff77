"""What is there, by a listing: couplings by the first digits of their fingerprint, and the files of a committed one.

That is cheap where `verify_pairs` reads every byte.
"""

import os
import re
from dataclasses import dataclass

from storage.filesystem import join, open_folder
from storage.listing import list_files, list_names
from storage.manifest import Manifest, StoredObject

_COUPLING = re.compile(r"([0-9a-f]{64})\.(?:zarr|parquet)")


def search_pairs(store_url: str | os.PathLike[str], digits: str) -> list[str]:
    """URLs of the couplings in a store whose fingerprint begins so, in any format, committed or not.

    Raises:
        StoreError: the store cannot be listed.
    """
    there = list_names(join(store_url, "pairs"))
    found = [name for name in there if (match := _COUPLING.fullmatch(name)) and match[1].startswith(digits)]
    return [join(store_url, "pairs", name) for name in found]


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
