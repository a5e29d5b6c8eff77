"""All that MLflow holds of some datasets: their runs, logged models and registered versions, read in pages."""

from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.entities.model_registry import RegisteredModel

from flows.lineage import tags as tag
from flows.lineage.search import all_models, all_registered, all_runs, all_versions, experiment_ids, model_ids_of
from flows.lineage.waiting import or_none


@dataclass
class Records:
    """What was read, by its id; None stands for what something refers to and MLflow does not hold.

    Attributes:
        runs: deleted ones too.
        models: logged models.
        versions: of registered models, with their aliases.
        digests: of the datasets that were read.
    """

    client: MlflowClient
    runs: dict[str, Run | None] = field(default_factory=dict)
    models: dict[str, Any | None] = field(default_factory=dict)
    versions: list[tuple[Any, tuple[str, ...]]] = field(default_factory=list)
    digests: set[str] = field(default_factory=set)

    def read(self, digests: set[str]) -> None:
        """Reads all about datasets, and about others where a model was made of theirs.

        A search for each dataset, and a request for what a tag refers to and no search has found.

        Raises:
            MlflowException: MLflow does not answer.
        """
        experiments = list(chain.from_iterable(experiment_ids(self.client).values()))
        while wanted := digests - self.digests:
            for digest in wanted:
                self.digests.add(digest)
                chosen = f"tags.`{tag.DATASET_DIGEST}` = '{digest}'"
                for run in all_runs(self.client, experiments, chosen):
                    self.runs[run.info.run_id] = run
                for model in all_models(self.client, experiments, chosen):
                    self.models[model.model_id] = model
            self._read_what_is_referred_to()
            digests |= self._elsewhere(experiments)
        if not self.versions:
            for registered in all_registered(self.client):
                self._read_versions(registered)

    def run(self, run_id: str) -> Run | None:
        """A run, asked for if it was not read yet."""
        if run_id not in self.runs:
            self.runs[run_id] = or_none(lambda: self.client.get_run(run_id))
        return self.runs[run_id]

    def model(self, model_id: str) -> Any | None:
        """A logged model, likewise."""
        if model_id not in self.models:
            self.models[model_id] = or_none(lambda: self.client.get_logged_model(model_id))
        return self.models[model_id]

    def _read_what_is_referred_to(self) -> None:
        for run in [each for each in self.runs.values() if each is not None]:
            if run.info.lifecycle_stage == "deleted":
                continue
            for run_id in runs_named_by(run):
                self.run(run_id)
            for model_id in models_named_by(run):
                self.model(model_id)
        for model in [each for each in self.models.values() if each is not None]:
            if model.source_run_id:
                self.run(model.source_run_id)

    def _elsewhere(self, experiments: list[str]) -> set[str]:
        """Datasets whose models or pairs were made from these, or from whose models or pairs these were made."""
        digests = {model.tags.get(tag.DATASET_DIGEST) for model in self.models.values() if model is not None}
        made = {model.tags.get(tag.CHECKPOINT_SHA256) for model in self.models.values() if model is not None}
        for run in all_runs(self.client, experiments, f"tags.`{tag.BASE_SHA256}` LIKE '%'"):
            if run.data.tags[tag.BASE_SHA256] in made:
                digests.add(run.data.tags.get(tag.DATASET_DIGEST))
        runs = [run.data.tags for run in self.runs.values() if run is not None]
        digests |= {tags.get(tag.EXTENDS_DATASET_DIGEST) for tags in runs}
        pairs = {tags.get(tag.FINGERPRINT) for tags in runs if tags.get(tag.STAGE) == "pair"}
        for run in all_runs(self.client, experiments, f"tags.`{tag.EXTENDS_FINGERPRINT}` LIKE '%'"):
            if run.data.tags[tag.EXTENDS_FINGERPRINT] in pairs:
                digests.add(run.data.tags.get(tag.DATASET_DIGEST))
        return {each for each in digests if each}

    def _read_versions(self, registered: RegisteredModel) -> None:
        aliases: dict[str, list[str]] = {}
        for alias, version in registered.aliases.items():
            aliases.setdefault(str(version), []).append(alias)
        for each in all_versions(self.client, registered.name):
            self.versions.append((each, tuple(sorted(aliases.get(str(each.version), [])))))


def runs_named_by(run: Run) -> set[str]:
    """The runs that a run's tags refer to."""
    names = (tag.PARENT_RUN, tag.TRAINING_RUN, tag.PAIRING_RUN)
    prefixes = (f"{tag.TRAINING_RUN}.", f"{tag.EVALUATION_RUN}.")
    return {value for key, value in run.data.tags.items() if value and (key in names or key.startswith(prefixes))}


def models_named_by(run: Run) -> set[str]:
    """The logged models that a run made, or that its tags refer to."""
    named = {run.data.tags.get(name) for name in (tag.MODEL_ID, tag.BASE_MODEL_ID)}
    return {*model_ids_of(run), *(each for each in named if each)}
