"""`pairflow lineage`: what something came from and what came of it, as MLflow, the store and the disk tell it."""

import json as json_module
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.tree import Tree

from flows.command import options as opt
from flows.home import references
from flows.home.environment import prepare_environment
from flows.home.settings import Settings
from pairflow.errors import SpecError, StoreError

if TYPE_CHECKING:
    from flows.lineage.tracing.nodes import Node, Trace

# Facts that a line shows, by their label there; all of them are in the JSON.
_SHOWN = {
    "method": "method",
    "training_seed": "seed",
    "digest": "digest",
    "fingerprint": "fingerprint",
    "rows": "rows",
    "engine": "engine",
    "aliases": "aliases",
}
_NOTHING: tuple[Any, ...] = (None, "", [])
_LENGTH = {"digest": 12, "fingerprint": 12}
_INDENT = 4  # of a branch of rich's tree
_NARROWEST = 40


def add_to(app: typer.Typer) -> None:
    """Adds the command to the command line."""
    app.command("lineage")(lineage)


def lineage(
    reference: Annotated[
        str | None,
        typer.Argument(
            metavar="REF",
            help=references.as_help(references.ANYTHING),
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
    if not settings.has_history:
        raise StoreError(
            f"nothing was ever run here: there is no {settings.tracking_uri}; set PAIRFLOW_HOME or MLFLOW_TRACKING_URI"
        )
    prepare_environment(settings)
    from flows.lineage.tracing.trace import trace
    from flows.lineage.tracking import Lineage

    known = Lineage(settings)
    if sync:
        done = known.send_unsent()
        for path in done.refused:
            print(f"warning: MLflow refuses what is kept in {path}", file=sys.stderr)
        print(f"{len(done.sent)} earlier runs sent what was left to {known.uri}", file=sys.stderr)
    if reference is None:
        return
    found = trace(reference, known)
    if json:
        print(json_module.dumps(as_document(reference, found)))
    else:
        terminal = Console(highlight=False)
        # The lines are cut below, between words: rich would break addresses, which nobody could copy then.
        console = Console(highlight=False, width=10_000)
        for start in found.starts:
            console.print(_tree(found, start, terminal.width))
    for node, fault in found.broken:
        print(f"broken: {node.name} ({node.id}): {fault}", file=sys.stderr)
    if found.broken:
        raise typer.Exit(1)


def as_document(reference: str, found: "Trace") -> dict[str, Any]:
    """A trace as JSON: nodes, links between their ids, and what is broken."""
    return {
        "ref": reference,
        "ok": not found.broken,
        "starts": list(found.starts),
        "nodes": [asdict(node) for node in found.nodes.values()],
        "links": [{"from": source, "to": target} for source, target in found.links],
        "broken": [{"id": node.id, "kind": node.kind, "fault": fault} for node, fault in found.broken],
    }


def _tree(found: "Trace", start: str, width: int) -> Tree:
    tree = Tree(_line(found.nodes[start], width))
    for title, neighbours in (("came from", found.before), ("came of it", found.after)):
        if neighbours[start]:
            nearest = _nearest(start, neighbours)
            _grow(tree.add(f"[bold]{title}[/bold]"), found, start, nearest, {start}, width - 2 * _INDENT)
    return tree


def _nearest(start: str, neighbours: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """The neighbours of all that is reached from a node, without those that are also reached by way of another."""
    beyond: dict[str, set[str]] = {}
    waiting = [start]
    while waiting:
        here = waiting[-1]
        beyond.setdefault(here, set())  # so that tags which somebody made lead in a circle end here
        if unknown := [other for other in neighbours[here] if other not in beyond]:
            waiting += unknown
            continue
        waiting.pop()
        beyond[here] = set(neighbours[here]).union(*(beyond[other] for other in neighbours[here]))
    return {
        here: [
            other
            for other in neighbours[here]
            if not any(other in beyond[another] for another in neighbours[here] if another != other)
        ]
        for here in beyond
    }


def _grow(
    branch: Tree, found: "Trace", node_id: str, neighbours: Mapping[str, Sequence[str]], seen: set[str], width: int
) -> None:
    """Adds what is on one side of a node; what stands above already is not spread out again."""
    for other in neighbours[node_id]:
        if other in seen:
            more = " [dim](see above)[/dim]" if neighbours[other] else ""
            branch.add(_short(found.nodes[other]) + more)
            continue
        seen.add(other)
        _grow(branch.add(_line(found.nodes[other], width)), found, other, neighbours, seen, width - _INDENT)


def _line(node: "Node", width: int) -> str:
    """A node: what it is, its id, its state, what is known, in lines of a width; where it lies; what is wrong."""
    facts = node.facts
    known = [node.state] if node.state not in ("", "FINISHED", "READY", "complete") else []
    known += [
        f"{label} {_text(name, facts[name])}" for name, label in _SHOWN.items() if facts.get(name) not in _NOTHING
    ]
    if (kept := facts.get("rows_kept")) is not None:
        known.append(f"{kept:,} of {facts.get('rows_read', kept):,} rows kept")
    if (seconds := facts.get("seconds")) is not None:
        known.append(f"{seconds:,.0f} s")
    if ratio := facts.get("metrics", {}).get("pairing_to_training_seconds"):
        known.append(f"pairing/training {ratio:.3g}")
    known += [facts["source"]] if "source" in facts else []
    # The name alone is bold, so that the lines are as long as their text.
    begin = len(node.name)
    text = f"{node.name}{_own_id(node)}  {', '.join(known)}"
    lines = textwrap.wrap(text, max(width, _NARROWEST), break_long_words=False, break_on_hyphens=False)
    first = f"[bold]{escape(lines[0][:begin])}[/bold]{escape(lines[0][begin:])}"
    faults = [f"[red]✗ {escape(fault)}[/red]" for fault in node.faults]
    return "\n".join([first, *map(escape, lines[1:]), *map(escape, facts.get("urls", ())), *faults])


def _short(node: "Node") -> str:
    return f"[bold]{escape(node.name)}[/bold]{_own_id(node)}"


def _own_id(node: "Node") -> str:
    return f"  {node.id.partition(':')[2]}" if node.kind in ("run", "model") else ""


def _text(name: str, value: Any) -> str:
    return ", ".join(value) if isinstance(value, list) else str(value)[: _LENGTH.get(name)]
