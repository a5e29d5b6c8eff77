"""`pairflow ls`: what lies in a store."""

import json as json_module
import time
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.command import options as opt
from flows.home.places import absolute_url
from flows.home.settings import Settings

if TYPE_CHECKING:
    from storage import Inventory, StoredCoupling

StoreArgument = Annotated[str | None, typer.Argument(help="Folder or fsspec URL of the store; default PAIRFLOW_STORE.")]


def store_url(store: str | None) -> str:
    """URL of the store that was named, else that of the settings."""
    return Settings.read().store if store is None else absolute_url(store)


def ls(store: StoreArgument = None, json: opt.Json = False) -> None:
    """List the couplings and prepared datasets of a store: how large they are, complete or partial."""
    import storage

    inventory = storage.take_inventory(store_url(store))
    if json:
        print(json_module.dumps(_as_document(inventory)))
        return
    if inventory.couplings:
        _show(inventory)
    else:
        print(f"no pairs in {inventory.url}")
    _show_prepared(inventory)
    if inventory.jobs:
        size = size_text(sum(each.num_bytes for each in inventory.jobs))
        print(f"{len(inventory.jobs)} job folder(s), {size}; `pairflow gc` removes old ones")


def _as_document(inventory: "Inventory") -> dict[str, Any]:
    return {
        "url": inventory.url,
        "datasets": [
            {"name": name, "digest": digest, "couplings": len(couplings), "num_bytes": _sum(couplings)}
            for (name, digest), couplings in _by_dataset(inventory).items()
        ],
        "couplings": [
            {
                "url": each.url,
                "fingerprint": each.fingerprint,
                "state": each.state,
                "dataset": None if each.header is None else each.header.dataset.get("name"),
                "format": None if each.header is None else each.header.format,
                "num_rows": None if each.header is None else each.header.num_rows,
                "num_shards": None if each.header is None else each.header.num_shards,
                "shards_written": each.shards_written,
                "engine": None if each.header is None else each.header.engine,
                "num_bytes": each.num_bytes,
                "modified": each.modified,
            }
            for each in inventory.couplings
        ],
        "prepared": [
            {
                "url": each.url,
                "fingerprint": each.fingerprint,
                "state": each.state,
                "dataset": None if each.header is None else each.header.name,
                "format": None if each.header is None else each.header.format,
                "num_rows": None if each.header is None else each.header.num_rows,
                "digests": None if each.header is None else each.header.digests,
                "num_bytes": each.num_bytes,
                "modified": each.modified,
            }
            for each in inventory.datasets
        ],
        "jobs": {"count": len(inventory.jobs), "num_bytes": sum(each.num_bytes for each in inventory.jobs)},
    }


def _show(inventory: "Inventory") -> None:
    """A line a coupling, by dataset."""
    lines = [("ID", "DATASET", "KIND", "T", "ROWS", "SIZE", "AGE", "FORMAT", "")]
    for (name, _), couplings in _by_dataset(inventory).items():
        for each in couplings:
            header = each.header
            kind, num_steps, rows = "?", "?", "?"
            if header is not None:
                kind = str(header.spec.get("kind", "redi")).replace("_", " ")
                # A matching takes no steps, though its spec has the field of the walk.
                num_steps = "" if kind == "assignment" else str(header.spec.get("num_steps", ""))
                rows = f"{header.num_rows:,}"
            shards = each.shards_written if header is None else f"{each.shards_written} of {header.num_shards}"
            state = "" if each.state == "complete" else f"{each.state}, {shards} shards"
            age = _age(time.time() - each.modified)
            file_format = each.url.rpartition(".")[2]
            size = size_text(each.num_bytes)
            lines.append((each.fingerprint[:12], name, kind, num_steps, rows, size, age, file_format, state))
    _print_table(lines, right=("T", "ROWS", "SIZE", "AGE"))
    count = f"{len(inventory.couplings)} coupling{'' if len(inventory.couplings) == 1 else 's'}"
    print(f"{count}, {size_text(_sum(list(inventory.couplings)))} in {inventory.url}")


def _show_prepared(inventory: "Inventory") -> None:
    """A line a prepared dataset."""
    if not inventory.datasets:
        return
    lines = [("ID", "PREPARED", "ROWS", "D", "K", "SIZE", "AGE", "FORMAT", "")]
    for each in inventory.datasets:
        header = each.header
        shape = ("?", "?", "?")
        if header is not None:
            shape = (f"{header.num_rows:,}", str(header.length), str(header.vocab_size))
        name, file_format = ("(unreadable)", "?") if header is None else (header.name, header.format)
        rest = (size_text(each.num_bytes), _age(time.time() - each.modified), file_format)
        lines.append((each.fingerprint[:12], name, *shape, *rest, "" if each.state == "complete" else each.state))
    _print_table(lines, right=("ROWS", "D", "K", "SIZE", "AGE"))
    total = sum(each.num_bytes for each in inventory.datasets)
    many = "" if len(inventory.datasets) == 1 else "s"
    print(f"{len(inventory.datasets)} prepared dataset{many}, {size_text(total)} in {inventory.url}")


def _print_table(lines: Sequence[Sequence[str]], *, right: tuple[str, ...]) -> None:
    """Columns as wide as they must be; numbers stand at the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = zip(lines[0], line, widths, strict=True)
        shown = (text.rjust(width) if title in right else text.ljust(width) for title, text, width in cells)
        print("  ".join(shown).rstrip())


def _age(seconds: float) -> str:
    """In the largest unit of which there are two."""
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def _by_dataset(inventory: "Inventory") -> dict[tuple[str, str], list["StoredCoupling"]]:
    """Couplings by (name, digest) of their training part."""
    found: dict[tuple[str, str], list[StoredCoupling]] = defaultdict(list)
    for each in inventory.couplings:
        dataset = {} if each.header is None else each.header.dataset
        found[str(dataset.get("name", "(unreadable)")), str(dataset.get("digest", ""))].append(each)
    return found


def _sum(couplings: list["StoredCoupling"]) -> int:
    return sum(each.num_bytes for each in couplings)


def size_text(num_bytes: float) -> str:
    """Bytes in the largest unit that has one."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if num_bytes < 1024 or unit == "GiB":
            break
        num_bytes /= 1024
    return f"{num_bytes:.0f} {unit}" if unit == "B" else f"{num_bytes:.1f} {unit}"
