"""`pairflow lineage`: what something came from and what came of it, as MLflow, the store and the disk tell it."""

import json as json_module
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.tree import Tree

from flows import options as opt
from flows.settings import Settings, absolute_url, prepare_environment
from pairflow.errors import SpecError

if TYPE_CHECKING:
    from flows.lineage.chain import Chain, ChainNode

_SHOWN = ("method", "training_seed", "digest", "fingerprint", "checkpoint", "rows", "engine", "aliases", "source")
_LENGTH = {"digest": 12, "fingerprint": 12}


def add_to(app: typer.Typer) -> None:
    """Adds the command to the command line."""
    app.command("lineage")(lineage)


def lineage(
    reference: Annotated[
        str | None,
        typer.Argument(
            metavar="REF",
            help="An MLflow model id m-…, a run's id, pairflow-NAME@ALIAS or pairflow-NAME/VERSION, the URL or "
            "fingerprint of pairs, a dataset's name or digest, a training's fingerprint, or a checkpoint's folder.",
        ),
    ] = None,
    sync: Annotated[
        bool, typer.Option("--sync", help="First send what earlier runs could not send to an MLflow that was away.")
    ] = False,
    json: opt.Json = False,
) -> None:
    """Show what REF came from, and what came of it; exit code 1 if a link is broken, and which."""
    if reference is None and not sync:
        raise SpecError("REF is missing: give a model, run, dataset or pairs to trace, or --sync")
    settings = Settings.read()
    prepare_environment(settings)
    from flows.lineage import Lineage
    from flows.lineage.trace import trace

    known = Lineage(settings)
    if sync:
        done = known.send_unsent()
        for path in done.refused:
            print(f"warning: MLflow refuses what is kept in {path}", file=sys.stderr)
        print(f"{len(done.sent)} earlier runs sent what was left to {known.uri}", file=sys.stderr)
    if reference is None:
        return
    chain = trace(_absolute(reference), known)
    if json:
        print(json_module.dumps(as_document(reference, chain)))
    else:
        console = Console(highlight=False, soft_wrap=True)
        for start in chain.starts:
            console.print(_tree(chain, start))
    for node, fault in chain.broken:
        print(f"broken: {node.name} ({node.id}): {fault}", file=sys.stderr)
    if chain.broken:
        raise typer.Exit(1)


def as_document(reference: str, chain: "Chain") -> dict[str, Any]:
    """A chain as JSON: nodes, links between their ids, and what is broken."""
    return {
        "ref": reference,
        "ok": not chain.broken,
        "starts": list(chain.starts),
        "nodes": [asdict(node) for node in chain.nodes.values()],
        "links": [{"from": source, "to": target} for source, target in chain.links],
        "broken": [{"id": node.id, "kind": node.kind, "fault": fault} for node, fault in chain.broken],
    }


def _absolute(reference: str) -> str:
    """A path made absolute; anything else as it is."""
    is_path = Path(reference).expanduser().exists() or "/pairs/" in reference
    return absolute_url(reference) if is_path else reference


def _tree(chain: "Chain", start: str) -> Tree:
    tree = Tree(_line(chain.nodes[start]))
    for title, neighbours in (("came from", chain.before), ("came of it", chain.after)):
        if neighbours(start):
            _grow(tree.add(f"[bold]{title}[/bold]"), chain, start, neighbours, {start})
    return tree


def _grow(branch: Tree, chain: "Chain", node_id: str, neighbours: Any, seen: set[str]) -> None:
    """Adds what is on one side of a node; what stands above already is not spread out again."""
    for other in neighbours(node_id):
        line = _line(chain.nodes[other])
        if other in seen:
            more = " [dim](see above)[/dim]" if neighbours(other) else ""
            branch.add(line + more)
            continue
        seen.add(other)
        _grow(branch.add(line), chain, other, neighbours, seen)


def _line(node: "ChainNode") -> str:
    """A node in one line: what it is, its id, its state, what is known, what is wrong."""
    _, _, own_id = node.id.partition(":")
    known = [own_id] if node.kind in ("run", "model") else []
    if node.state and node.state not in ("FINISHED", "READY", "complete"):
        known.append(node.state)
    known += [
        f"{name.replace('_', ' ')} {_text(name, node.facts[name])}"
        for name in _SHOWN
        if node.facts.get(name) not in (None, "", [])
    ]
    if (kept := node.facts.get("rows_kept")) is not None:
        known.append(f"{kept:,} of {node.facts.get('rows_read', kept):,} rows kept")
    if (seconds := node.facts.get("seconds")) is not None:
        known.append(f"{seconds:,.0f} s")
    ratio = node.facts.get("metrics", {}).get("pairing_to_training_seconds")
    if ratio:
        known.append(f"pairing/training {ratio:.3g}")
    known += node.facts.get("urls", [])
    faults = "".join(f"\n[red]✗ {escape(fault)}[/red]" for fault in node.faults)
    return f"[bold]{escape(node.name)}[/bold]  {escape(', '.join(map(str, known)))}{faults}"


def _text(name: str, value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value)[: _LENGTH.get(name)]
