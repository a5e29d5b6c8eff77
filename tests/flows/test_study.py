"""`pairflow study` at a tiny size: four methods, two of them refined, from data to one table, and found again."""

import json
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient

import storage
from flows.jobs.redi_shards import BLOCK, draw_rows
from flows.results import ComparisonResult, TrainResult
from pairflow.checkpoint import load_model
from pairflow.distillation.redi import draw_pairs
from pairflow.spec import RediSpec

from .conftest import Cli

_SETTINGS = {
    "training.num_steps": 6,
    "training.batch_size": 16,
    "model.hidden_size": 16,
    "evaluation.steps": "[1,2]",
    "evaluation.num_samples": 8,
    "evaluation.num_trials": 2,
    "distillation.num_steps": 4,
    "distillation.update_teacher_every": 2,
    "distillation.batch_size": 16,
    "redi.num_pairs": 9,
    "redi.num_steps": 3,
    "redi_training.num_steps": 4,
    "redi_training.batch_size": 16,
}
_DATA = ["--dataset", "nci", "--max-rows", 150]


_OPTIONS = [word for name, value in _SETTINGS.items() for word in ("--set", f"{name}={value}")]


def _result(cli: Cli, methods: str) -> tuple[ComparisonResult, str]:
    done = cli("study", *_DATA, "--methods", methods, "--shard-size", 5, "--json", *_OPTIONS)
    assert done.code == 0, done.stderr
    return ComparisonResult.model_validate(json.loads(done.last_line)), done.stderr


@pytest.fixture(scope="module")
def study(cli: Cli) -> ComparisonResult:
    return _result(cli, "udlm+redi,udlm+dcd,mdlm")[0]


@pytest.fixture(scope="module")
def client(home: Path, study: ComparisonResult) -> MlflowClient:
    return MlflowClient(f"sqlite:///{home}/mlflow/mlflow.db")


def test_every_method_is_in_the_table_with_its_cost(study: ComparisonResult) -> None:
    assert study.pairs is None  # none of them needs any
    assert [each.method for each in study.trainings] == ["mdlm", "udlm"]
    assert [each.method for each in study.distillations] == ["udlm+redi", "udlm+dcd"]
    table = json.loads(Path(study.evaluation.table).read_text())
    assert [row["method"] for row in table["methods"]] == ["mdlm", "udlm+redi", "udlm+dcd"]
    assert Path(study.evaluation.figure).read_bytes().startswith(b"\x89PNG")
    costs = {each.method: each for each in study.evaluation.costs}
    seconds = {each.method: each.training_seconds for each in (*study.trainings, *study.distillations)}
    assert costs["udlm+dcd"].training.mean == seconds["udlm"]
    assert costs["udlm+dcd"].refinement.mean == seconds["udlm+dcd"]
    assert costs["udlm+dcd"].pairing.mean == costs["mdlm"].refinement.mean == 0
    assert costs["udlm+redi"].pairing.mean == study.redi_pairs[0].pairing_seconds > 0
    calls = {each.method: [step.num_network_calls for step in each.steps] for each in study.evaluation.methods}
    assert calls["udlm+dcd"] == [2, 3]
    assert calls["mdlm"] == [1, 2]  # masks leave a greedy end nothing to do


def test_lineage_of_refined_models(client: MlflowClient, study: ComparisonResult) -> None:
    base = next(each for each in study.trainings if each.method == "udlm")
    parent = client.get_run(study.mlflow_run_id)
    assert parent.data.metrics["refinement_seconds.udlm-dcd"] > 0
    for refined in study.distillations:
        run = client.get_run(refined.mlflow_run_id)
        assert run.info.status == "FINISHED"
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert run.data.tags["pairflow.stage"] == "distill"
        assert [each.model_id for each in run.inputs.model_inputs] == [base.mlflow_model_id]
        assert [each.model_id for each in run.outputs.model_outputs] == [refined.mlflow_model_id]
        assert refined.base_checkpoint == base.checkpoint
        used = {tag.value for each in run.inputs.dataset_inputs for tag in each.tags if tag.key == "pairflow.digest"}
        expected = {base.dataset_digest}
        if refined.method == "udlm+redi":
            expected.add(study.redi_pairs[0].fingerprint)
        assert used == expected


def test_redi_pairs_are_the_models_own_and_whole(cli: Cli, study: ComparisonResult) -> None:
    made = study.redi_pairs[0]
    assert (made.rows, made.num_shards, made.engine) == (9, 2, "redi/2")
    assert storage.verify_pairs(made.url, progress=False).ok
    base = next(each for each in study.trainings if each.method == "udlm")
    pairs = storage.open_pairs(made.url)
    assert pairs.manifest.spec["model_sha256"] == base.checkpoint_sha256
    drawn = draw_pairs(load_model(base.checkpoint), RediSpec(num_pairs=9, num_steps=3), progress=False)
    np.testing.assert_array_equal(np.asarray(pairs.source), drawn.source)
    np.testing.assert_array_equal(np.asarray(pairs.target), drawn.target)
    np.testing.assert_array_equal(np.asarray(pairs.sample_id), np.arange(9))
    # The command finds them: by the fingerprint's first digits, in another cut.
    options = ["--num-pairs", 9, "--num-steps", 3, "--shard-size", 4, "--json"]
    again = cli("pair", *_DATA, "--coupling", "redi", "--model", base.fingerprint[:12], *options)
    assert again.code == 0, again.stderr
    assert json.loads(again.last_line) == made.model_dump() | {
        "skipped": True,
        "seconds": json.loads(again.last_line)["seconds"],
    }


def test_a_pair_does_not_depend_on_the_cut(study: ComparisonResult) -> None:
    loaded = load_model(study.trainings[1].checkpoint)
    spec = RediSpec(num_pairs=BLOCK + 10, num_steps=2)
    whole = np.concatenate(
        [np.stack(draw_rows(loaded, spec, *cut)) for cut in ((0, BLOCK), (BLOCK, BLOCK + 10))], axis=1
    )
    for start, stop in ((0, 3), (BLOCK - 2, BLOCK + 2), (BLOCK + 9, BLOCK + 10)):
        np.testing.assert_array_equal(np.stack(draw_rows(loaded, spec, start, stop)), whole[:, start:stop])


def test_another_study_finds_what_is_finished(cli: Cli, client: MlflowClient, study: ComparisonResult) -> None:
    before = {run.info.run_id for run in client.search_runs([study.mlflow_experiment_id])}
    again, said = _result(cli, "udlm+dcd")
    assert all(each.skipped for each in (*again.trainings, *again.distillations))
    assert again.evaluation.models == study.evaluation.models[-1:]
    after = {run.info.run_id for run in client.search_runs([study.mlflow_experiment_id])}
    assert after - before == {again.mlflow_run_id}  # the study's own
    assert said.count("nothing to do") >= 2


def test_a_distillation_is_a_job_of_rays(new_cli: Cli, client: MlflowClient, study: ComparisonResult) -> None:
    """The study's are forked; of the kinds of jobs, this one is not in the pipeline whose jobs are Ray's."""
    base = next(each for each in study.trainings if each.method == "udlm")
    settings = {name: value for name, value in _SETTINGS.items() if name.startswith(("model.", "distillation."))}
    settings["distillation.num_steps"] = 2
    options = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    done = new_cli("distill", *_DATA, "--method", "udlm+dcd", "--model", base.checkpoint, *options, "--json")
    assert done.code == 0, done.stderr
    made = TrainResult.model_validate(json.loads(done.last_line))
    assert (made.skipped, made.num_steps, made.base_checkpoint) == (False, 2, base.checkpoint)
    tags = client.get_run(str(made.mlflow_run_id)).data.tags
    assert tags["pairflow.ray_submission_id"].startswith("distill-")
    assert tags["pairflow.base_model_id"] == base.mlflow_model_id


def test_samples_of_a_model_in_mlflow(bare_cli: Cli, study: ComparisonResult, tmp_path: Path) -> None:
    distilled = study.distillations[1]
    by_id, by_folder = tmp_path / "a.npy", tmp_path / "b.npy"
    for reference, out in ((f"models:/{distilled.mlflow_model_id}", by_id), (distilled.checkpoint, by_folder)):
        done = bare_cli("sample", "--model", reference, "-n", 5, "--steps", 2, "--out", out)
        assert done.code == 0, done.stderr
        assert done.last_line == str(out)
    np.testing.assert_array_equal(np.load(by_id), np.load(by_folder))
