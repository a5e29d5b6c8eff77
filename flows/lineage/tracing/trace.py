"""The chain of a reference: found in MLflow, and checked against the store and the disk."""

from flows.lineage import references
from flows.lineage.tracing import checks
from flows.lineage.tracing.chain import Chain
from flows.lineage.tracing.graph import Graph
from flows.lineage.tracing.records import Records
from flows.lineage.tracking import Lineage


def trace(reference: str, lineage: Lineage) -> Chain:
    """What `reference` came from, and what came of it.

    Raises:
        LineageError: it stands for nothing, or for several things; or MLflow does not answer.
    """
    chain = lineage.insist(lambda: _trace(reference, lineage), patience_s=0)
    checks.check(chain)
    return chain


def _trace(reference: str, lineage: Lineage) -> Chain:
    found = references.find(reference, lineage.client)
    records = Records(lineage.client)
    for each in found.read:
        _ = records.model(each) if each.startswith("m-") else records.run(each)
    records.read(set(found.digests))
    graph = Graph(records)
    for start in found.starts:
        kind, _, name = start.partition(":")
        if kind == "run":
            graph.run(name)
        elif kind == "pairs":
            graph.pairs(name, reference if "/" in reference else None)
        elif kind == "dataset":
            graph.dataset(name)
    return graph.around(found.starts)
