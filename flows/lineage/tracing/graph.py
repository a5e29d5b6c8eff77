"""All that some records hold, as a graph: data → pairing → pairs → training → model → evaluation → comparison.

The links are those that the runs' tags say. What a link leads to and is not there stays in the graph, with its fault.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mlflow.entities import Run

from flows.lineage import tags as tag
from flows.lineage.search import model_ids_of
from flows.lineage.tracing.facts import facts_of_run, facts_of_tags
from flows.lineage.tracing.nodes import Node, Trace
from flows.lineage.tracing.records import Records, models_named_by, runs_named_by
from flows.lineage.versions import model_id_of
from flows.lineage.writer import inputs_of

_MODEL_TAGS = (tag.METHOD, tag.TRAINING_SEED, tag.FINGERPRINT, tag.CHECKPOINT_SHA256)


class Graph:
    """All nodes and links of some records."""

    def __init__(self, records: Records) -> None:
        self.nodes: dict[str, Node] = {}
        self.links: dict[tuple[str, str], None] = {}
        self._records = records
        self._by_sha256 = {
            model.tags[tag.CHECKPOINT_SHA256]: model.model_id
            for model in records.models.values()
            if model is not None and tag.CHECKPOINT_SHA256 in model.tags
        }
        self._children: dict[str, list[str]] = defaultdict(list)
        for run in records.runs.values():
            if run is not None and (parent := run.data.tags.get(tag.PARENT_RUN)) is not None:
                self._children[parent].append(run.info.run_id)
        active = [run for run in records.runs.values() if run is not None and run.info.lifecycle_stage != "deleted"]
        for run in sorted(active, key=lambda each: each.info.start_time or 0):
            self._add_run(run)
        for model_id, model in records.models.items():
            if model is not None:
                self.model(model_id)
        self._add_deleted_pairings()
        for version, aliases in records.versions:
            self._add_version(version, aliases)

    def around(self, starts: Sequence[str]) -> Trace:
        """The part that leads to some nodes, and that comes of them."""
        before: dict[str, list[str]] = defaultdict(list)
        after: dict[str, list[str]] = defaultdict(list)
        for source, target in self.links:
            before[target].append(source)
            after[source].append(target)
        kept = _reach(starts, before) | _reach(starts, after)
        links = tuple(link for link in self.links if link[0] in kept and link[1] in kept)
        for node_id in kept:
            if node_id.startswith("pairs:") and not before[node_id]:
                self.nodes[node_id].faults.append("MLflow has no run that made these pairs")
        return Trace(tuple(starts), {key: self.nodes[key] for key in self.nodes if key in kept}, links)

    def dataset(self, digest: str, name: str | None = None) -> str:
        """The node of a dataset, made if there is none."""
        node = self.nodes.setdefault(f"dataset:{digest}", Node(f"dataset:{digest}", "dataset", "dataset"))
        node.facts["digest"] = digest
        if name is not None:
            node.name = name
        return node.id

    def pairs(self, fingerprint: str, url: str | None) -> str:
        """The node of coupled pairs, likewise."""
        node = self.nodes.setdefault(f"pairs:{fingerprint}", Node(f"pairs:{fingerprint}", "pairs", "pairs"))
        node.facts["fingerprint"] = fingerprint
        urls = node.facts.setdefault("urls", [])
        if url and url not in urls:
            urls.append(url)
        return node.id

    def run(self, run_id: str) -> str:
        """The node of a run that something refers to; of a missing or deleted one, with that as its fault."""
        if f"run:{run_id}" not in self.nodes:
            found = self._records.run(run_id)
            node = Node(f"run:{run_id}", "run", "run", state="missing", facts={"run_id": run_id})
            if found is None:
                node.faults.append("MLflow has no such run")
                self.nodes[node.id] = node
            elif found.info.lifecycle_stage == "deleted":
                self._add_run(found)
                self.nodes[node.id].state = "deleted"
                self.nodes[node.id].faults.append("somebody deleted this run in MLflow")
            else:
                self._add_run(found)
        return f"run:{run_id}"

    def model(self, model_id: str) -> str:
        """The node of a logged model, likewise."""
        node_id = f"model:{model_id}"
        if node_id in self.nodes:
            return node_id
        found = self._records.model(model_id)
        node = self.nodes[node_id] = Node(node_id, "model", "model", facts={"model_id": model_id})
        if found is None:
            node.state = "missing"
            node.faults.append("MLflow has no such model")
            return node_id
        node.name, node.state = f"model {found.name}", str(found.status)
        node.facts |= facts_of_tags(found.tags, _MODEL_TAGS)
        node.facts["artifacts"] = found.artifact_location
        if found.source_run_id:
            self._link(self.run(found.source_run_id), node_id)
        return node_id

    def _link(self, source: str, target: str) -> None:
        if source != target:
            self.links[source, target] = None

    def _add_run(self, run: Run) -> None:
        tags = run.data.tags
        node_id = f"run:{run.info.run_id}"
        if node_id in self.nodes:
            return
        node = self.nodes[node_id] = Node(node_id, "run", str(run.info.run_name or "run"), str(run.info.status))
        node.facts = facts_of_run(run)
        stage = tags.get(tag.STAGE)
        for used in inputs_of(run):
            if used.digest == tags.get(tag.DATASET_DIGEST):
                self.nodes[self.dataset(used.digest, used.name)].facts |= {**used.profile, **used.source}
        if (parent := tags.get(tag.PARENT_RUN)) is not None:
            node.facts["parent_run_id"] = parent
        if stage == "pair":
            self._add_sources(run, node_id)
            self._link(node_id, self.pairs(tags.get(tag.FINGERPRINT, ""), tags.get(tag.PAIRS_URL)))
        elif stage in ("train", "distill"):
            self._add_sources(run, node_id)
            if (fingerprint := tags.get(tag.PAIRS_FINGERPRINT)) is not None:
                self._link(self.pairs(fingerprint, tags.get(tag.PAIRS_URL)), node_id)
            made = model_ids_of(run)
            for model_id in made:
                self._link(node_id, self.model(model_id))
            if not made and run.info.status == "FINISHED":
                node.faults.append("this run is finished, but has no model")
            self._say_checkpoint(run, node)
        elif stage == "evaluate":
            self._add_evaluation(run, node_id)
        else:
            self._add_comparison(run, node_id)

    def _add_deleted_pairings(self) -> None:
        """Names the deleted run of pairs that no other run has made."""
        made = {target for _, target in self.links}
        for run in [each for each in self._records.runs.values() if each is not None]:
            pairs = f"pairs:{run.data.tags.get(tag.FINGERPRINT)}"
            if run.data.tags.get(tag.STAGE) == "pair" and pairs in self.nodes and pairs not in made:
                self._link(self.run(run.info.run_id), pairs)

    def _add_sources(self, run: Run, node_id: str) -> None:
        """The data, pairs that were extended, and the model that a run started from or drew with."""
        tags = run.data.tags
        if (digest := tags.get(tag.DATASET_DIGEST)) is not None:
            self._link(self.dataset(digest), node_id)
        if (earlier := tags.get(tag.EXTENDS_FINGERPRINT)) is not None:
            self._link(self.pairs(earlier, tags.get(tag.EXTENDS_URL)), node_id)
        base = tags.get(tag.BASE_MODEL_ID) or self._by_sha256.get(tags.get(tag.BASE_SHA256, ""))
        if base is not None:
            self._link(self.model(base), node_id)
        elif (sha256 := tags.get(tag.BASE_SHA256)) is not None:
            self.nodes[node_id].faults.append(
                f"MLflow has no model with the checkpoint {sha256}, which it started from"
            )

    def _add_evaluation(self, run: Run, node_id: str) -> None:
        models = models_named_by(run)
        if not models and (known := self._by_sha256.get(run.data.tags.get(tag.CHECKPOINT_SHA256, ""))):
            models = {known}  # it was named by its folder
        for model_id in models:
            self._link(self.model(model_id), node_id)
        if (trained := run.data.tags.get(tag.TRAINING_RUN)) is not None:
            training = self.run(trained)
            if not models:
                self._link(training, node_id)
            for model_id in models:
                if self.nodes[f"model:{model_id}"].state == "missing":
                    self._link(training, f"model:{model_id}")
        if (parent := run.data.tags.get(tag.PARENT_RUN)) is not None:
            self._link(node_id, self.run(parent))

    def _add_comparison(self, run: Run, node_id: str) -> None:
        """A pipeline, study or the like: its evaluations lead to it; of one that is not finished, all its stages."""
        named = runs_named_by(run) - {run.data.tags.get(tag.PARENT_RUN)}
        evaluations = {
            value for key, value in run.data.tags.items() if key.startswith(f"{tag.EVALUATION_RUN}.") and value
        }
        for run_id in evaluations or named:
            self._link(self.run(run_id), node_id)
        if not evaluations:
            for child in self._children[run.info.run_id]:
                self._link(self.run(child), node_id)

    def _say_checkpoint(self, run: Run, node: Node) -> None:
        checkpoint = run.data.tags.get(tag.CHECKPOINT)
        if checkpoint is not None:
            node.facts["checkpoint"] = checkpoint

    def _add_version(self, version: Any, aliases: tuple[str, ...]) -> None:
        model_id = model_id_of(version)
        if model_id not in self._records.models and version.run_id not in self._records.runs:
            return  # of other data
        node_id = f"version:{version.name}/{version.version}"
        node = Node(node_id, "version", f"{version.name} version {version.version}", str(version.status))
        node.facts = {"name": version.name, "version": str(version.version), "aliases": list(aliases)}
        self.nodes[node_id] = node
        if model_id:
            self._link(self.model(model_id), node_id)
        elif version.run_id:
            self._link(self.run(version.run_id), node_id)


def _reach(starts: Iterable[str], neighbours: Mapping[str, Sequence[str]]) -> set[str]:
    reached = set(starts)
    waiting = list(reached)
    while waiting:
        new = set(neighbours.get(waiting.pop(), ())) - reached
        reached |= new
        waiting += new
    return reached
