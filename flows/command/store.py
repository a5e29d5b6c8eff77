"""`pairflow ls`, `gc` and `export`: what lies in the store, what can go, and pairs in another form."""

import functools
import json as json_module
import sys
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.command import needed_pairs
from flows.command import options as opt
from flows.home.places import absolute_url
from flows.home.settings import Settings
from pairflow.errors import StoreError
from pairflow.spec import PairsFormat

if TYPE_CHECKING:
    from storage import Garbage, Inventory, StoredCoupling

StoreArgument = Annotated[str | None, typer.Argument(help="Folder or fsspec URL of the store; default PAIRFLOW_STORE.")]
_HOUR_S = 3600
_SOME = 5  # files of others in the folder of a coupling that are named


def add_to(app: typer.Typer) -> None:
    """Adds the commands to the command line."""
    app.command("ls")(ls)
    app.command("gc")(gc)
    app.command("export")(export)


def ls(store: StoreArgument = None, json: opt.Json = False) -> None:
    """List the couplings and prepared datasets of a store: how large they are, complete or partial."""
    import storage

    inventory = storage.take_inventory(_store_url(store))
    if json:
        print(json_module.dumps(_as_document(inventory)))
        return
    if inventory.couplings:
        _show(inventory)
    else:
        print(f"no pairs in {inventory.url}")
    _show_prepared(inventory)
    if inventory.jobs:
        size = _size(sum(each.num_bytes for each in inventory.jobs))
        print(f"{len(inventory.jobs)} job folder(s), {size}; `pairflow gc` removes old ones")


def gc(
    store: StoreArgument = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go, and remove nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask; at a terminal it asks otherwise.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Also partial couplings that an MLflow run refers to, or may.")
    ] = False,
    unreferenced: Annotated[
        bool,
        typer.Option(
            "--unreferenced", help="Also complete couplings, and prepared data, that no MLflow run refers to."
        ),
    ] = False,
    older_than: Annotated[
        float, typer.Option(min=0, help="Hours since the last write; leave those who are at work their files.")
    ] = 24,
    json: opt.Json = False,
) -> None:
    """Remove partial couplings and data, leftovers of killed writers, old job folders; never what a run refers to."""
    import storage

    inventory = storage.take_inventory(_store_url(store))
    if not inventory.is_store:
        raise StoreError(
            f"{inventory.url} is no store of PairFlow: nothing in it says that PairFlow wrote it, so nothing is "
            "removed; name the folder that `pairflow ls` shows pairs of"
        )
    # None: there is nobody to ask, which is not the same as that nobody refers to anything.
    runs = {} if force and not unreferenced else needed_pairs.by_fingerprint(Settings.read())
    if unreferenced:
        needed_pairs.check_knows(runs, inventory, insist=not force)
    find = functools.partial(
        storage.find_garbage, older_than_s=older_than * _HOUR_S, needed=list(runs or ()) if unreferenced else None
    )
    found = find(inventory)
    kept = [each for each in found if not force and each.fingerprint and (runs is None or each.fingerprint in runs)]
    going = [each for each in found if each not in kept]
    if not json:
        _say(inventory, kept, going, runs)
    if going and not dry_run:
        if not yes and sys.stdin.isatty() and sys.stderr.isatty():
            typer.confirm(f"Remove {'these' if not json else len(going)} from {inventory.url}?", abort=True, err=True)
            # Somebody may have gone on with a partial coupling since.
            now = find(storage.take_inventory(inventory.url))
            going = [each for each in going if each in now]
        for each in going:
            storage.remove(inventory.url, each)
    if json:
        document: dict[str, Any] = {"url": inventory.url, "dry_run": dry_run}
        document["removed"] = [_garbage_document(each) for each in going]
        document["kept"] = [
            _garbage_document(each) | {"mlflow_run_id": (runs or {}).get(each.fingerprint or "")} for each in kept
        ]
        print(json_module.dumps(document))
        return
    freed = _size(sum(each.num_bytes for each in going))
    print(f"{freed} {'can be freed' if dry_run else 'freed'} in {inventory.url}")


def _say(inventory: "Inventory", kept: list["Garbage"], going: list["Garbage"], runs: Mapping[str, str] | None) -> None:
    """What goes, what stays and why, before anything is removed."""
    for each in kept:
        because = (
            f"MLflow run {runs[each.fingerprint or '']} refers to it"
            if runs is not None
            else "this home has no MLflow history to ask whether a run refers to it"
        )
        print(f"kept {each.url}: {each.kind}, but {because}; --force removes it", file=sys.stderr)
    for coupling in inventory.couplings:
        for name in coupling.stray[:_SOME]:
            print(f"left alone {inventory.url}/{name}: these pairs do not know it", file=sys.stderr)
    for data in inventory.datasets:
        for name in data.stray[:_SOME]:
            print(f"left alone {inventory.url}/{name}: this prepared data does not know it", file=sys.stderr)
    for each in going:
        count = f"{len(each.names)} file{'s' if len(each.names) > 1 else ''}"
        print(f"to remove, {each.kind}: {each.url} ({count}, {_size(each.num_bytes)})", flush=True)


def export(
    pairs: opt.StoredPairs,
    format: Annotated[PairsFormat, typer.Option(help="File format of the copy.")],
    shard_size: Annotated[
        int | None, typer.Option(min=1, help="Rows a shard of the copy; default as in the source.")
    ] = None,
    to: Annotated[
        str | None, typer.Option(help="Store (folder or fsspec URL) of the copy; default the store of the pairs.")
    ] = None,
    json: opt.Json = False,
) -> None:
    """Write pairs again in another format or cut, with the same content hash; prints the URL of the copy."""
    import storage
    from flows.lineage import stored_pairs

    url = stored_pairs.url_of(pairs)
    store = absolute_url(to) if to is not None else storage.store_of(url)
    copy_url = storage.export_pairs(
        url, format, store_url=store, shard_size=shard_size, progress=sys.stderr.isatty() and not json
    )
    manifest = storage.open_pairs(copy_url).manifest
    if json:
        fields = ("fingerprint", "format", "num_rows", "shard_size", "content_sha256")
        print(json_module.dumps({"url": copy_url} | {name: getattr(manifest, name) for name in fields}))
        return
    print(f"{manifest.num_rows:,} pairs in {len(manifest.shards)} shards, content {manifest.content_sha256}")
    print(copy_url)


def _store_url(store: str | None) -> str:
    return Settings.read().store if store is None else absolute_url(store)


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
            size = _size(each.num_bytes)
            lines.append((each.fingerprint[:12], name, kind, num_steps, rows, size, age, file_format, state))
    _print_table(lines, right=("T", "ROWS", "SIZE", "AGE"))
    count = f"{len(inventory.couplings)} coupling{'' if len(inventory.couplings) == 1 else 's'}"
    print(f"{count}, {_size(_sum(list(inventory.couplings)))} in {inventory.url}")


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
        rest = (_size(each.num_bytes), _age(time.time() - each.modified), file_format)
        lines.append((each.fingerprint[:12], name, *shape, *rest, "" if each.state == "complete" else each.state))
    _print_table(lines, right=("ROWS", "D", "K", "SIZE", "AGE"))
    total = sum(each.num_bytes for each in inventory.datasets)
    many = "" if len(inventory.datasets) == 1 else "s"
    print(f"{len(inventory.datasets)} prepared dataset{many}, {_size(total)} in {inventory.url}")


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


def _garbage_document(garbage: "Garbage") -> dict[str, Any]:
    return {
        "kind": garbage.kind,
        "url": garbage.url,
        "num_files": len(garbage.names),
        "num_bytes": garbage.num_bytes,
        "fingerprint": garbage.fingerprint,
    }


def _sum(couplings: list["StoredCoupling"]) -> int:
    return sum(each.num_bytes for each in couplings)


def _size(num_bytes: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if num_bytes < 1024 or unit == "GiB":
            break
        num_bytes /= 1024
    return f"{num_bytes:.0f} {unit}" if unit == "B" else f"{num_bytes:.1f} {unit}"
