"""Finds experiments, runs and models in MLflow, page by page where there may be many."""

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Experiment, LifecycleStage, Run, ViewType
from mlflow.entities.model_registry import ModelVersion, RegisteredModel
from mlflow.exceptions import MlflowException

from flows.lineage import tags as tag

Artifacts = Callable[[str], str | None]
"""Where the files of an experiment go, by its name; None leaves it to the server."""

_PREFIX = tag.EXPERIMENT_PREFIX
_PAGE = 500
_logger = logging.getLogger("pairflow.lineage")


def find_experiment(client: MlflowClient, dataset: str) -> Experiment | None:
    """The experiment that holds a dataset's runs, a deleted one too: by its name, or by the one that people gave it."""
    found = client.get_experiment_by_name(f"{_PREFIX}{dataset}")
    if found is None:
        of_dataset = f"tags.`{tag.DATASET}` = '{dataset}'"
        renamed = client.search_experiments(ViewType.ACTIVE_ONLY, 1, of_dataset, ["creation_time ASC"])
        found = renamed[0] if renamed else None
    return found


def experiment_id_of(client: MlflowClient, dataset: str, artifacts: Artifacts) -> str:
    """The id of a dataset's experiment, which is made if there is none, and restored if somebody deleted it.

    MLflow gives its name to no other while it can be restored, and takes no run into it: the work of hours would end in
    a refusal. Its runs come back with it.

    Args:
        client: MLflow's.
        dataset: its name.
        artifacts: where the files of a new experiment go.
    """
    name, found = f"{_PREFIX}{dataset}", find_experiment(client, dataset)
    if found is None:
        tags = {tag.EXPERIMENT_KIND: "custom_model_development", tag.DATASET: dataset}  # else it opens as one on agents
        try:
            return str(client.create_experiment(name, artifact_location=artifacts(name), tags=tags))
        except MlflowException:
            found = find_experiment(client, dataset)  # another process was quicker
            if found is None:
                raise
    if found.lifecycle_stage == LifecycleStage.DELETED:
        client.restore_experiment(found.experiment_id)
        _logger.warning("somebody deleted the experiment %s in MLflow: restored, as its runs belong there", name)
    if tag.DATASET not in found.tags:  # made by an earlier release: it shall be known when it is renamed
        try:
            client.set_experiment_tag(found.experiment_id, tag.DATASET, dataset)
        except MlflowException:
            if tag.DATASET not in client.get_experiment(found.experiment_id).tags:  # else another process was quicker
                raise
    return str(found.experiment_id)


def find_run(client: MlflowClient, experiment_id: str, stage: str, fingerprint: str) -> Run | None:
    """The last run of a stage that computes what `fingerprint` stands for, deleted ones left out."""
    runs = client.search_runs(
        [experiment_id],
        f"tags.`{tag.FINGERPRINT}` = '{fingerprint}' and tags.`{tag.STAGE}` = '{stage}'",
        max_results=1,
        order_by=["start_time DESC"],
    )
    return runs[0] if runs else None


def experiment_ids(client: MlflowClient, *, deleted: bool = False) -> dict[str, list[str]]:
    """Dataset -> ids of its experiments, for all that are ours; those too that somebody has deleted, if wanted.

    Of a dataset there are several where people renamed one, and an earlier release made another.
    """
    view = ViewType.ALL if deleted else ViewType.ACTIVE_ONLY
    found: dict[str, list[str]] = {}
    for each in _pages(lambda token: client.search_experiments(view, page_token=token)):
        if tag.DATASET in each.tags or each.name.startswith(_PREFIX):
            dataset = each.tags.get(tag.DATASET, each.name.removeprefix(_PREFIX))
            found.setdefault(dataset, []).append(each.experiment_id)
    return found


def all_runs(client: MlflowClient, experiments: Sequence[str], filter_string: str) -> Iterator[Run]:
    """Every run that a filter lets through, the newest first, those that were deleted too."""
    if experiments:
        yield from _pages(
            lambda token: client.search_runs(
                list(experiments), filter_string, ViewType.ALL, _PAGE, ["start_time DESC"], token
            )
        )


def all_models(client: MlflowClient, experiments: Sequence[str], filter_string: str) -> Iterator[Any]:
    """Every logged model that a filter lets through."""
    if experiments:
        yield from _pages(lambda token: client.search_logged_models(list(experiments), filter_string, page_token=token))


def all_registered(client: MlflowClient) -> Iterator[RegisteredModel]:
    """Every registered model that is ours, whatever dataset it is of."""
    for each in _pages(lambda token: client.search_registered_models(page_token=token)):
        if tag.DATASET in each.tags or each.name.startswith(_PREFIX):
            yield each


def all_versions(client: MlflowClient, name: str) -> Iterator[ModelVersion]:
    """Every version of a registered model; none if there is no such model."""
    yield from _pages(lambda token: client.search_model_versions(f"name = '{name}'", _PAGE, page_token=token))


def model_ids_of(run: Run) -> list[str]:
    """The logged models that a run made."""
    return [str(each.model_id) for each in (run.outputs.model_outputs if run.outputs else [])]


def _pages(ask: Callable[[str | None], Any]) -> Iterator[Any]:
    token = None
    while True:
        page = ask(token)
        yield from page
        token = page.token
        if not token:
            return
