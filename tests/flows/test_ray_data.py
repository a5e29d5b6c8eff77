"""Ray Data reads the pairs on the session's cluster, as a job without any of our code."""

import json
import sys
import time
from pathlib import Path

import numpy as np
from ray.job_submission import JobStatus, JobSubmissionClient

import storage
from flows.cluster.local import LocalCluster

_SCRIPT = """
import json, sys
import numpy as np
import ray
import ray.data

ray.init(address="auto")
ray.data.DataContext.get_current().enable_progress_bars = False

def with_distance(rows):
    return rows | {"differ": (np.stack(rows["source"]) != np.stack(rows["target"])).sum(axis=1)}

# One pass over the data, as each starts workers anew.
rows = ray.data.read_parquet(sys.argv[1]).map_batches(with_distance, batch_format="numpy").take_all()
rows.sort(key=lambda row: row["sample_id"])
with open(sys.argv[2], "w") as file:
    json.dump({
        "count": len(rows),
        "sample_id": [int(row["sample_id"]) for row in rows],
        "source": [row["source"].tolist() for row in rows],
        "target": [row["target"].tolist() for row in rows],
        "differ": int(sum(row["differ"] for row in rows)),
        "ours": "storage" in sys.modules,
    }, file)
"""


def test_ray_data_reads_the_parts(ray_cluster: LocalCluster, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    source, target = rng.integers(0, 5, (2, 40, 6), np.uint8)
    header = storage.PairsHeader(
        fingerprint="ab" * 32,
        format="parquet",
        num_rows=40,
        length=6,
        vocab_size=5,
        shard_size=7,
        spec={},
        dataset={"digest": "cd" * 32},
        engine="cpu/1",
    )
    url = storage.pairs_url(tmp_path, header.fingerprint, header.format)
    storage.begin_pairs(url, header)
    for shard in header.plan():
        rows = slice(shard.start, shard.stop)
        storage.write_shard(url, header, shard.index, source[rows], target[rows], np.arange(shard.start, shard.stop))
    storage.commit_pairs(url, header, {}, progress=False)

    script, answer = tmp_path / "read.py", tmp_path / "answer.json"
    script.write_text(_SCRIPT)
    client = JobSubmissionClient(ray_cluster.address, headers=ray_cluster.headers)
    job = client.submit_job(entrypoint=f"{sys.executable} {script} {url} {answer}")
    ended = {JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.STOPPED}
    deadline = time.monotonic() + 240
    while client.get_job_status(job) not in ended and time.monotonic() < deadline:
        time.sleep(0.5)
    assert client.get_job_status(job) == JobStatus.SUCCEEDED, client.get_job_logs(job)[-3000:]
    found = json.loads(answer.read_text())
    assert (found["count"], found["ours"]) == (40, False)
    assert found["sample_id"] == list(range(40))
    assert found["source"] == source.tolist()
    assert found["target"] == target.tolist()
    assert found["differ"] == int((source != target).sum())
