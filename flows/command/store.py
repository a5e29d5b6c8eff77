"""`pairflow ls`, `gc` and `export`: what lies in the store, what can go, and pairs in another form."""

import json as json_module
import sys
import time
from collections import defaultdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from flows.command import options as opt
from flows.home.places import absolute_url
from flows.home.settings import Settings, prepare_environment
from pairflow.spec import PairsFormat

if TYPE_CHECKING:
    from storage import Garbage, Inventory, StoredCoupling

StoreArgument = Annotated[str | None, typer.Argument(help="Folder or fsspec URL of the store; default PAIRFLOW_STORE.")]
_HOUR_S = 3600


def add_to(app: typer.Typer) -> None:
    """Adds the commands to the command line."""
    app.command("ls")(ls)
    app.command("gc")(gc)
    app.command("export")(export)


def ls(store: StoreArgument = None, json: opt.Json = False) -> None:
    """List the datasets and couplings of a store: how large they are, complete or partial."""
    import storage

    inventory = storage.take_inventory(_store_url(store))
    if json:
        print(json_module.dumps(_as_document(inventory)))
    elif not inventory.couplings:
        print(f"no pairs in {inventory.url}")
    else:
        _show(inventory)


def gc(
    store: StoreArgument = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go, and remove nothing.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Also partial couplings that an MLflow run refers to.")
    ] = False,
    unreferenced: Annotated[
        bool, typer.Option("--unreferenced", help="Also complete couplings that no MLflow run refers to.")
    ] = False,
    older_than: Annotated[
        float, typer.Option(min=0, help="Hours since the last write; leave those who are at work their files.")
    ] = 24,
    json: opt.Json = False,
) -> None:
    """Remove partial couplings, leftovers of killed writers and old job folders; never what an MLflow run refers to."""
    import storage

    settings = Settings.read()
    inventory = storage.take_inventory(_store_url(store))
    runs = {} if force and not unreferenced else _runs_by_fingerprint(settings)
    found = storage.find_garbage(
        inventory, older_than_s=older_than * _HOUR_S, needed=list(runs) if unreferenced else None
    )
    kept = [each for each in found if not force and each.fingerprint in runs]
    going = [each for each in found if each not in kept]
    if not dry_run:
        for each in going:
            storage.remove(inventory.url, each)
    if json:
        document: dict[str, Any] = {"url": inventory.url, "dry_run": dry_run}
        document["removed"] = [_garbage_document(each) for each in going]
        document["kept"] = [_garbage_document(each) | {"mlflow_run_id": runs[each.fingerprint or ""]} for each in kept]
        print(json_module.dumps(document))
        return
    for each in kept:
        print(
            f"kept {each.url}: {each.kind}, but MLflow run {runs[each.fingerprint or '']} refers to it; "
            "--force removes it",
            file=sys.stderr,
        )
    for each in going:
        count = f"{len(each.names)} file{'s' if len(each.names) > 1 else ''}"
        print(f"{'would remove' if dry_run else 'removed'} {each.kind}: {each.url} ({count}, {_size(each.num_bytes)})")
    print(f"{_size(sum(each.num_bytes for each in going))} {'can be freed' if dry_run else 'freed'} in {inventory.url}")


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


def _runs_by_fingerprint(settings: Settings) -> dict[str, str]:
    """MLflow runs that made or used pairs: one for each fingerprint.

    Raises:
        LineageError: MLflow cannot be reached.
    """
    if not settings.has_history:
        return {}
    prepare_environment(settings)
    from flows.lineage.tracking import Lineage

    return Lineage(settings).runs_of_pairs()


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
        "jobs": {"count": len(inventory.jobs), "num_bytes": sum(each.num_bytes for each in inventory.jobs)},
    }


def _show(inventory: "Inventory") -> None:
    for (name, digest), couplings in _by_dataset(inventory).items():
        title = f"{name}  {digest[:12]}  {len(couplings)} coupling(s), {_size(_sum(couplings))}"
        table = Table("state", "pairs", "shards", "size", "engine", "written", title=title, title_justify="left")
        table.add_column("URL", overflow="fold")
        for each in couplings:
            header = each.header
            shards = f"{each.shards_written}" + ("" if header is None else f" of {header.num_shards}")
            written = time.strftime("%Y-%m-%d %H:%M", time.localtime(each.modified))
            rows, engine = ("?", "?") if header is None else (f"{header.num_rows:,}", header.engine)
            table.add_row(each.state, rows, shards, _size(each.num_bytes), engine, written, each.url)
        Console().print(table)
    if inventory.jobs:
        size = _size(sum(each.num_bytes for each in inventory.jobs))
        print(f"{len(inventory.jobs)} job folder(s), {size}; `pairflow gc` removes old ones")


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
