"""The whole `pipeline` on nci with its store on S3: pairs as on a disk, and the key in no log, manifest or tag.

The pairs are made by a job of Ray's, which has the key from the cluster's nodes; the pipeline finds them, and forks its
other jobs.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest

from flows.cluster.local import LocalCluster, wait_for_head
from flows.service.setup import make_store

from ..storage import s3_server
from .conftest import Cli, Finished
from .forked_jobs import GCS_VARIABLE

_DATASET = ["--dataset", "nci", "--max-rows", 120]
_PAIR = ["pair", *_DATASET, "--seed", 7, "--json"]
_PIPELINE = [
    *("pipeline", *_DATASET, "--json", "--set", "coupling.seed=7"),
    *("--set", "training.num_steps=4", "--set", "training.batch_size=16", "--set", "model.hidden_size=16"),
    *("--set", "evaluation.steps=[1]", "--set", "evaluation.num_samples=8", "--set", "evaluation.num_trials=1"),
]


@dataclass(frozen=True)
class Bucket:
    """What two commands left on S3, read by another client than the store's."""

    objects: dict[str, bytes]
    pair: Finished
    pipeline: Finished

    @property
    def result(self) -> Any:
        return json.loads(self.pipeline.last_line)


pytestmark = pytest.mark.timeout(1500)  # four jobs and servers of their own: on a busy machine more than ten minutes


@pytest.fixture(scope="module")
def bucket(cli: Cli, new_cli: Cli, home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bucket]:
    log = tmp_path_factory.mktemp("s3") / "server.log"
    with s3_server.running(log) as keys, pytest.MonkeyPatch.context() as patch:
        for name, value in keys.items():
            patch.setenv(name, value)
        make_store("s3://pairs/store")  # as a cluster's setup does
        client = boto3.client("s3")
        # Jobs have their keys from the nodes of the cluster, so this one starts where they are set.
        with LocalCluster(home, object_store_mb=200, num_cpus=2) as cluster:
            cluster.wait()
            variables = keys | cluster.environment | {"PAIRFLOW_STORE": "s3://pairs/store"}
            pair = new_cli(*_PAIR, **variables)
            assert pair.code == 0, pair.stderr
            pipeline = cli(*_PIPELINE, **variables, **{GCS_VARIABLE: wait_for_head(cluster.folder, patience_s=60)})
            assert pipeline.code == 0, pipeline.stderr
        names = [each["Key"] for each in client.list_objects_v2(Bucket="pairs")["Contents"]]
        objects = {name: client.get_object(Bucket="pairs", Key=name)["Body"].read() for name in names}
        yield Bucket(objects, pair, pipeline)
        client.close()


def test_pairs_are_those_of_a_local_disk(bucket: Bucket, cli: Cli, tmp_path: Path) -> None:
    url = bucket.result["pairs"]["url"]
    made = json.loads(bucket.pair.last_line)
    assert (made["url"], made["skipped"], bucket.result["pairs"]["skipped"]) == (url, False, True)
    assert url.startswith("s3://pairs/store/pairs/")
    root = url.removeprefix("s3://pairs/") + "/"
    remote = {name.removeprefix(root): data for name, data in bucket.objects.items() if name.startswith(root)}
    others = [each["url"].removeprefix("s3://pairs/") + "/" for each in bucket.result["other_pairs"]]
    kept = ("store/datasets/", "store/jobs/", "store/runs/", "store/evaluations/", "store/reports/")
    beside = {name for name in bucket.objects if not name.startswith((root, *others, *kept))}
    assert beside == set()

    local = cli(*_PAIR, "--store", tmp_path)
    assert local.code == 0, local.stderr
    folder = Path(json.loads(local.last_line)["url"])
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert set(remote) == set(files)
    ours, theirs = (json.loads(each["_manifest.json"]) for each in (remote, files))
    assert ours["content_sha256"] == theirs["content_sha256"]
    data = [name for name in files if name.startswith(("source/", "target/"))]
    assert len(data) >= 2
    assert {name: remote[name] for name in data} == {name: files[name] for name in data}


def test_both_models_are_compared(bucket: Bucket) -> None:
    models = bucket.result["evaluation"]["models"]
    assert [each["method"] for each in models] == ["udlm", "pairflow", "assigned"]
    for each in bucket.result["trainings"]:
        place = each["checkpoint"].removeprefix("s3://pairs/")
        state = json.loads(bucket.objects[f"{place}/state.json"])
        assert hashlib.sha256(bucket.objects[f"{place}/tensors.safetensors"]).hexdigest() == state["sha256"]
    for name in ("report", "table", "figure", "grid", "trajectories"):
        assert bucket.objects[bucket.result["evaluation"][name].removeprefix("s3://pairs/")]


def test_the_key_is_in_no_log_manifest_or_tag(bucket: Bucket, home: Path) -> None:
    secrets = [os.environ[name].encode() for name in ("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID")]
    written = {str(path): path.read_bytes() for path in home.rglob("*") if path.is_file()}
    assert any(name.endswith("mlflow.db") for name in written)
    assert any("prefect" in name and ".db" in name for name in written)  # its logs and parameters
    commands = {"pair": bucket.pair, "pipeline": bucket.pipeline}
    said = {
        f"{name}, {of}": getattr(each, of).encode() for name, each in commands.items() for of in ("stdout", "stderr")
    }
    places = written | bucket.objects | said
    assert [place for place, data in places.items() if any(secret in data for secret in secrets)] == []
