"""`retrain` from the first champion to a rollback: what it decides, what it skips, and that people are told why."""

import json
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow import MlflowClient

import storage
from flows.home.locks import only_one
from flows.results import RetrainResult

from .conftest import Cli
from .retrain_story import tell

pytestmark = pytest.mark.timeout(1500)  # the story is many retrainings, on a machine that may have other work

_ROOT = Path(__file__).resolve().parents[2]
_RULE: dict[str, Any] = {"name": "story", "steps": 2, "trials": 3, "num_samples": 16}
_OPTIONS = ["--name", "story", "--steps", 2, "--trials", 3, "--num-samples", 16, "--method", "udlm", "--json"]


def _rows(num_rows: int, seed: int) -> Any:
    """Nearly all tokens are 3 of 0 … 4: a model that learns anything at all is far better than one that does not."""
    random = np.random.default_rng(seed)
    return np.where(random.random((num_rows, 6)) < 0.9, 3, random.integers(5, size=(num_rows, 6))).tolist()


def _training(num_steps: int) -> dict[str, Any]:
    return {
        "num_steps": num_steps,
        "batch_size": 16,
        "learning_rate": 0.01,
        "warmup_steps": 0,
        "ema_decay": 0.5,
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rows")
    np.save(folder / "a.npy", np.array(_rows(40, 0), np.uint8))
    (folder / ".half.npy").write_bytes(b"being written")
    return folder


@pytest.fixture(scope="module")
def story(
    cli_environment: dict[str, str], nursery_address: Path, tmp_path_factory: pytest.TempPathFactory, folder: Path
) -> dict[str, RetrainResult]:
    common = {
        **_RULE,
        "dataset": {"name": "tokens", "path": str(folder), "vocab_size": 5},
        "model": {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "cond_size": 8},
    }
    untrained = {**common, "method": "udlm", "training": _training(1)}
    paired = {**common, "method": "pairflow", "coupling": {"num_steps": 2}, "training": _training(60)}
    steps = {
        "first": untrained,
        "again": untrained,
        "more data": {"file": str(folder / "b.npy"), "rows": _rows(20, 1)},
        "better": paired,
        "worse": untrained,
        "worse again": untrained,
        "and more": {"file": str(folder / "c.npy"), "rows": _rows(5, 2)},
        "extended": {**paired, "extend": True},
        "extended again": {**paired, "extend": True},
    }
    told = tell([*steps.values()], cli_environment, nursery_address, tmp_path_factory.mktemp("story"))
    names = [name for name, step in steps.items() if "file" not in step]
    return dict(zip(names, map(RetrainResult.model_validate_json, told), strict=True))


@pytest.fixture(scope="module")
def client(home: Path, story: dict[str, RetrainResult]) -> MlflowClient:
    return MlflowClient(f"sqlite:///{home}/mlflow/mlflow.db")


def test_decisions(story: dict[str, RetrainResult]) -> None:
    assert {name: (each.outcome, each.candidate, each.champion) for name, each in story.items()} == {
        "first": ("first", 1, 1),
        "again": ("skipped", None, 1),
        "better": ("promoted", 2, 2),
        "worse": ("challenger", 3, 2),
        "worse again": ("skipped", None, 2),
        "extended": ("challenger", 4, 2),
        "extended again": ("skipped", None, 2),
    }
    assert "are those of version 1, the champion of pairflow-story" in story["again"].sentence
    assert story["better"].sentence.startswith(
        "Version 2 replaces version 1 as champion: marginal total variation at 2"
    )
    assert story["worse"].sentence.startswith("Version 2 stays champion, version 3 is a challenger:")
    assert "which is worse" in story["worse"].sentence
    assert "version 3 of pairflow-story, which is a challenger to version 2" in story["worse again"].sentence


def test_both_models_were_measured_alike(story: dict[str, RetrainResult]) -> None:
    evaluation = story["better"].evaluation
    assert evaluation is not None
    candidate, champion = evaluation.models
    assert (candidate.label, champion.label) == ("PairFlow", "UDLM (pairflow-story@champion)")
    assert champion.reference == "pairflow-story@champion"
    scores = [each.steps[0].scores[each.headline.name] for each in (candidate, champion)]
    assert [len(each.trials) for each in scores] == [3, 3]
    assert scores[0].mean < scores[1].mean  # a distance


def test_versions_say_what_they_are_and_why(client: MlflowClient, story: dict[str, RetrainResult]) -> None:
    versions = {number: client.get_model_version("pairflow-story", str(number)) for number in (1, 2, 3)}
    for name, number in (("better", 2), ("worse", 3)):
        page = versions[number].description
        assert story[name].sentence in page
        assert "| marginal total variation |" in page
        assert versions[number].tags["pairflow.dataset_digest"] in json.dumps(dict(versions[number].tags))
    assert versions[1].tags["pairflow.training_rows"] == "36"
    assert versions[2].tags["pairflow.training_rows"] == "54"
    assert versions[2].tags["pairflow.dataset_digest"] == versions[3].tags["pairflow.dataset_digest"]
    assert "Trained because data and settings differ from those of version 1" in versions[2].description
    run = client.get_run(str(story["better"].mlflow_run_id))
    assert run.data.tags["pairflow.decision"] == story["better"].sentence
    assert run.data.metrics["difference"] > run.data.metrics["difference_required"]
    children = client.search_runs([run.info.experiment_id], f"tags.`mlflow.parentRunId` = '{run.info.run_id}'")
    stages = sorted(each.data.tags["pairflow.stage"] for each in children)
    assert stages == ["evaluate", "evaluate", "pair", "train"]


def test_an_extension_takes_the_champions_pairs_over(client: MlflowClient, story: dict[str, RetrainResult]) -> None:
    tags = {number: client.get_model_version("pairflow-story", str(number)).tags for number in (1, 2, 3, 4)}
    before, after = (storage.open_pairs(tags[number]["pairflow.pairs_url"]).manifest for number in (2, 4))
    assert tags[4]["pairflow.extends"] == before.fingerprint
    assert tags[2]["pairflow.extends"] == ""
    assert "pairflow.pairs_url" not in tags[1].keys() | tags[3].keys()
    assert after.spec["extends"] == {"fingerprint": before.fingerprint, "content_sha256": before.content_sha256}
    assert 0 < int(str(after.summary["rows_taken_over"])) <= before.num_rows


def test_prefect_tells_the_decision(prefect_url: str, story: dict[str, RetrainResult]) -> None:
    def post(path: str, body: dict[str, Any]) -> Any:
        request = urllib.request.Request(  # noqa: S310 - http
            f"{prefect_url}/{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310 - http
            return json.load(response)

    chosen = {"tags": {"all_": ["retrain", "story"]}}
    runs = post("flow_runs/filter", {"flow_runs": chosen, "sort": "START_TIME_ASC"})[: len(story)]
    for run, (name, result) in zip(runs, story.items(), strict=True):
        skipped = result.outcome == "skipped"
        assert run["state"]["type"] == "COMPLETED"
        assert run["state"]["name"] == ("Skipped" if skipped else "Completed"), name
        assert run["state"]["message"] == result.sentence
        found = post("artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [run["id"]]}}})
        (decision,) = (each for each in found if each["key"] == "decision-pairflow-story")
        assert result.sentence in decision["data"]
        assert ("| --- |" in decision["data"]) is not skipped


def _aliases(client: MlflowClient) -> dict[str, int]:
    return {alias: int(number) for alias, number in client.get_registered_model("pairflow-story").aliases.items()}


def test_a_rollback_stays(cli: Cli, client: MlflowClient, folder: Path, story: dict[str, RetrainResult]) -> None:
    done = cli("rollback", "pairflow-story", "--reason", "it looked odd")
    assert done.code == 0, done.stderr
    aliases = {"champion": 1, "previous": 2, "challenger": 4}
    assert _aliases(client) == aliases
    (folder / "c.npy").unlink()  # the data is again what version 2 was made of
    settings = {
        **{f"training.{name}": value for name, value in _training(60).items() if name != "coupling"},
        **{"model.hidden_size": 16, "model.num_layers": 1, "model.num_heads": 2, "model.cond_size": 8},
        "coupling.num_steps": 2,
    }
    options = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    data = ["--dataset", "tokens", "--path", folder, "--vocab-size", 5]
    done = cli("retrain", *data, *_OPTIONS, "--method", "pairflow", *options)
    assert done.code == 0, done.stderr
    result = json.loads(done.last_line)
    assert (result["outcome"], result["champion"]) == ("skipped", 1)
    assert "`pairflow rollback pairflow-story` brings it back" in result["sentence"]
    assert _aliases(client) == aliases


def test_one_at_a_time(cli: Cli, home: Path, folder: Path, story: dict[str, RetrainResult]) -> None:
    data = ["--dataset", "tokens", "--path", folder, "--vocab-size", 5]
    with only_one(home / "locks", "retrain-story", "the run 'somebody' (7)") as other:
        assert other is None
        done = cli("retrain", *data, *_OPTIONS)
    assert done.code == 0, done.stderr
    result = json.loads(done.last_line)
    assert result["outcome"] == "skipped"
    assert result["sentence"].startswith("the run 'somebody' (7) is at it")


class TestLock:
    def test_a_killed_holder_leaves_nothing(self, tmp_path: Path) -> None:
        code = (
            "import sys; from pathlib import Path; from flows.home.locks import only_one\n"
            "with only_one(Path(sys.argv[1]), 'x', 'the other') as held:\n"
            "    print(held, flush=True)\n    sys.stdin.read()\n"
        )
        other = subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)],
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        with other:
            assert other.stdout is not None
            assert other.stdout.readline() == "None\n"
            with only_one(tmp_path, "x", "me") as held:
                assert held == "the other"
            with only_one(tmp_path, "y", "me") as held:
                assert held is None
            other.kill()
            other.wait(60)
        with only_one(tmp_path, "x", "me") as held:
            assert held is None
            with only_one(tmp_path, "x", "and me") as second:
                assert second == "me"
        with only_one(tmp_path, "x", "and me") as held:
            assert held is None
