"""What came from what, around some nodes: the answer of `flows.lineage.tracing.trace`."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

Kind = Literal["dataset", "pairs", "run", "model", "version"]


@dataclass
class Node:
    """A thing that came from others, or that others came from.

    Attributes:
        id: its kind and its own id, such as `pairs:<fingerprint>`.
        kind: what it is.
        name: as people call it.
        state: as its keeper says, such as FINISHED or complete.
        facts: what is known of it.
        faults: what is wrong with it; a trace with any is broken.
    """

    id: str
    kind: Kind
    name: str
    state: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Trace:
    """What came from what, around some nodes.

    Attributes:
        starts: ids of the nodes that it was asked for.
        nodes: by id.
        links: (id of what something came from, id of what came of it).
    """

    starts: tuple[str, ...]
    nodes: Mapping[str, Node]
    links: tuple[tuple[str, str], ...]

    @property
    def broken(self) -> list[tuple[Node, str]]:
        """Every fault, with the node that has it."""
        return [(node, fault) for node in self.nodes.values() for fault in node.faults]

    @cached_property
    def before(self) -> Mapping[str, list[str]]:
        """What each node came from, the earliest first."""
        return self._neighbours((target, source) for source, target in self.links)

    @cached_property
    def after(self) -> Mapping[str, list[str]]:
        """What came of each node, the earliest first."""
        return self._neighbours(self.links)

    def _neighbours(self, links: Iterable[tuple[str, str]]) -> Mapping[str, list[str]]:
        found: dict[str, list[str]] = {node_id: [] for node_id in self.nodes}
        for here, there in links:
            found[here].append(there)
        for each in found.values():
            each.sort(key=lambda other: (str(self.nodes[other].facts.get("started", "")), other))
        return found
