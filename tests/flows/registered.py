"""A registry that takes models without files, for the tests of its moves."""

from collections.abc import Iterator

import pytest

from flows.lineage import trial as trials
from flows.lineage.registry import Registry
from flows.lineage.tracking import Lineage
from flows.lineage.versions import Version


def empty_registry(lineage: Lineage, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    """One whose models need not work: the trial has tests of its own. Empty again at the end."""
    monkeypatch.setattr(trials, "sample_once", lambda model_id, tracking_uri: None)
    yield Registry(lineage)
    for model in lineage.client.search_registered_models():
        lineage.client.delete_registered_model(model.name)


def made(lineage: Lineage, registry: Registry, count: int) -> list[Version]:
    """So many new versions of one model, without files."""
    experiment = lineage.experiment("nci")
    run_id = lineage.client.create_run(experiment).info.run_id
    made = [lineage.client.create_logged_model(experiment, name="m", source_run_id=run_id) for _ in range(count)]
    ids = [str(model.model_id) for model in made]
    return [registry.register("nci", id_, description="text", tags={"pairflow.method": "udlm"}) for id_ in ids]


def aliases(lineage: Lineage) -> dict[str, int]:
    """Alias -> number of the version that has it."""
    found = lineage.client.get_registered_model("pairflow-nci").aliases
    return {alias: int(number) for alias, number in found.items()}
