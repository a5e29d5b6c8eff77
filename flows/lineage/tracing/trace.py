"""The trace of a reference: found in MLflow, and checked against the store and the disk."""

from flows.home import references
from flows.home.references import PairsUrl, Reference
from flows.lineage.tracing import checks, starts
from flows.lineage.tracing.graph import Graph
from flows.lineage.tracing.nodes import Trace
from flows.lineage.tracing.records import Records
from flows.lineage.tracking import Lineage


def trace(reference: str, lineage: Lineage) -> Trace:
    """What `reference` came from, and what came of it.

    Raises:
        LineageError: it stands for nothing, or for several things; or MLflow does not answer.
    """
    parsed = references.parse(reference)
    found = lineage.insist(lambda: _trace(parsed, lineage), patience_s=0)
    checks.check(found)
    return found


def _trace(reference: Reference, lineage: Lineage) -> Trace:
    found = starts.find(reference, lineage.client)
    records = Records(lineage.client)
    for each in found.read:
        _ = records.model(each) if each.startswith("m-") else records.run(each)
    records.read(set(found.digests))
    graph = Graph(records)
    for start in found.nodes:
        kind, _, name = start.partition(":")
        if kind == "run":
            graph.run(name)
        elif kind == "pairs":
            graph.pairs(name, reference.url if isinstance(reference, PairsUrl) else None)
        elif kind == "dataset":
            graph.dataset(name)
    return graph.around(found.nodes)
