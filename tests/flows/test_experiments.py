"""Experiments in MLflow that people delete or rename: their runs stay known."""

import pytest

from flows.home.references import Other
from flows.home.settings import Settings
from flows.lineage import tags as tag
from flows.lineage.tracing.starts import find
from flows.lineage.tracking import Lineage


@pytest.fixture(scope="module")
def lineage(tmp_path_factory: pytest.TempPathFactory) -> Lineage:
    return Lineage(Settings(home=tmp_path_factory.mktemp("experiments")))


def test_an_experiment_that_somebody_deleted_is_restored_with_its_runs(lineage: Lineage) -> None:
    experiment = lineage.experiment("nci")
    run = lineage.client.create_run(experiment).info.run_id
    lineage.client.delete_experiment(experiment)
    assert lineage.experiment("nci") == experiment
    assert lineage.client.get_run(run).info.lifecycle_stage == "active"
    lineage.client.log_metric(run, "loss", 1.0)  # which MLflow refuses in one that is deleted


def test_an_experiment_that_somebody_renamed_goes_on(lineage: Lineage) -> None:
    """Its runs stay found, and so does what they refer to: `gc --unreferenced` would remove their pairs."""
    experiment = lineage.experiment("digits")
    tags = {tag.PAIRS_FINGERPRINT: "ab" * 32, tag.FINGERPRINT: "cd" * 32, tag.DATASET_DIGEST: "ef" * 32}
    run = lineage.client.create_run(experiment, tags=tags | {tag.STAGE: "pair"}).info.run_id
    lineage.client.set_terminated(run)
    lineage.client.rename_experiment(experiment, "chosen by people")
    assert lineage.experiment("digits") == experiment
    assert lineage.finished("digits", "pair", "cd" * 32) == run
    # Where both are there, as an earlier release left them, new runs go where the name says, and the old ones count.
    second = lineage.client.create_experiment("pairflow-digits")
    assert lineage.experiment("digits") == second
    assert (lineage.runs_of_pairs() or {})["ab" * 32] == run
    assert find(Other("digits"), lineage.client).digests == {"ef" * 32}
