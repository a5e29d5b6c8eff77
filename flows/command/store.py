"""`pairflow gc` and `export`: what of a store can go, and pairs in another form; `ls` is in `listing`."""

import functools
import json as json_module
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.command import needed_pairs
from flows.command import options as opt
from flows.command.listing import StoreArgument, ls, size_text, store_url
from flows.home.places import absolute_url
from flows.home.settings import Settings
from pairflow.errors import SpecError, StoreError
from pairflow.spec import PairsFormat

if TYPE_CHECKING:
    from storage import Garbage, Inventory

_HOUR_S = 3600
_SOME = 5  # files of others in the folder of a coupling that are named


def add_to(app: typer.Typer) -> None:
    """Adds the commands to the command line."""
    app.command("ls")(ls)
    app.command("gc")(gc)
    app.command("export")(export)


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

    inventory = storage.take_inventory(store_url(store))
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
        if not yes and sys.stdin.isatty():
            if not sys.stderr.isatty():
                raise SpecError("nothing is removed: who to ask would not see it, as stderr is no terminal; add --yes")
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
    freed = size_text(sum(each.num_bytes for each in going))
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
        print(f"to remove, {each.kind}: {each.url} ({count}, {size_text(each.num_bytes)})", flush=True)


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


def _garbage_document(garbage: "Garbage") -> dict[str, Any]:
    return {
        "kind": garbage.kind,
        "url": garbage.url,
        "num_files": len(garbage.names),
        "num_bytes": garbage.num_bytes,
        "fingerprint": garbage.fingerprint,
    }
