"""The store on S3, over HTTP to a real server on loopback: written, resumed, committed, read, verified, repaired."""

import itertools
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest
import torch

import storage
from pairflow.batches import Batches
from pairflow.errors import ShardCorruptError, StoreError
from pairflow.replicas import Replica
from pairflow.streaming import StreamedBatches
from storage.filesystem import open_folder

from . import s3_server
from . import storage_formula as formula

SCRIPT = Path(formula.__file__)
_numbers = itertools.count()


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[dict[str, str]]:
    """The server, and in this process's environment what a user would have there."""
    with (
        s3_server.running(tmp_path_factory.mktemp("s3") / "server.log") as environment,
        pytest.MonkeyPatch.context() as m,
    ):
        for name, value in environment.items():
            m.setenv(name, value)
        yield environment


@pytest.fixture
def client(server) -> Any:
    """Another client than the store's."""
    opened = boto3.client("s3")
    yield opened
    opened.close()


@pytest.fixture
def bucket(client) -> str:
    """URL of a store in a fresh bucket."""
    name = f"bucket-{next(_numbers)}"
    client.create_bucket(Bucket=name)
    return f"s3://{name}/store"


@pytest.fixture
def objects(client) -> Callable[[str], dict[str, bytes]]:
    """Every object below a URL, by its name there."""

    def read(url: str) -> dict[str, bytes]:
        bucket, _, root = url.removeprefix("s3://").partition("/")
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{root}/")
        keys = [found["Key"] for page in pages for found in page.get("Contents", ())]
        return {key[len(root) + 1 :]: client.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys}

    return read


def put(url: str, name: str, data: bytes) -> None:
    open_folder(url).write(name, data)


def test_the_same_objects_as_the_files_of_a_disk(format, bucket, tmp_path, snapshot, objects):
    header = formula.header(format, 7)
    url = formula.write(bucket, header)
    assert url == f"{bucket}/pairs/{header.fingerprint}.{format}"
    assert objects(url) == snapshot(formula.write(str(tmp_path), header))
    pairs = storage.open_pairs(url)
    source, target, ids = formula.rows(header)
    order = np.random.default_rng(0).permutation(40)
    np.testing.assert_array_equal(pairs.source[order], source[order])
    np.testing.assert_array_equal(pairs.sample_id[:], ids)
    seen = np.concatenate([batch.target for batch in storage.PairReader(pairs, batch_size=9, resident_bytes=0)])
    assert sorted(map(bytes, seen)) == sorted(map(bytes, target))
    assert storage.verify_pairs(url, progress=False).ok


def test_a_training_streams_from_a_bucket(format, bucket):
    header = formula.header(format, 7)
    pairs = storage.open_pairs(formula.write(bucket, header))
    source, target, _ = formula.rows(header)
    options: dict[str, Any] = {"batch_size": 8, "seed": 1, "device": torch.device("cpu")}
    resident = Batches(target, source, **options)
    with StreamedBatches(pairs, num_steps=12, memory_bytes=3000, replica=Replica(), **options) as batches:
        for step in range(12):
            got, expected = batches.batch(step), resident.batch(step)
            assert all(torch.equal(got[k], expected[k]) for k in range(2))  # type: ignore[arg-type]


def test_resume_makes_only_what_is_missing(format, bucket, tmp_path, snapshot, objects):
    header = formula.header(format, 7)
    url = storage.pairs_url(bucket, header.fingerprint, format)
    planned = storage.begin_pairs(url, header)
    for index in (4, 1):
        shard = planned.shard(index)
        storage.write_shard(url, planned, index, *formula.rows(planned, shard.start, shard.stop))
    put(url, "source/c.0.0" if format == "zarr" else "part-00000.parquet", b"bytes of a dead writer, unrecorded")
    with pytest.raises(StoreError, match=r"partial, 2 of 6 shards \(missing: 0, 2, 3, 5\)"):
        storage.open_pairs(url)
    assert formula.write_missing(url, planned) == 4
    formula.write(bucket, header)
    assert objects(url) == snapshot(formula.write(str(tmp_path), header))


def test_damage_is_found_named_and_repaired(format, bucket, objects):
    header = formula.header(format, 7)
    url = formula.write(bucket, header)
    sound = objects(url)
    shard = "target/c.3.0" if format == "zarr" else "part-00003.parquet"
    for name in ("_manifest.json", "_header.json", "_records/00002.json", shard):
        data = bytearray(sound[name])
        data[len(data) // 2] ^= 4
        put(url, name, bytes(data))
        (bad,) = storage.verify_pairs(url, progress=False).bad
        assert bad.path == f"{url}/{name}"
        done = storage.restore_pairs(url)
        if name == shard:
            with pytest.raises(ShardCorruptError, match=f"shard 3 is damaged: {url}/{name}"):
                storage.open_pairs(url).target[:]
            assert done.bad_shards == [3]
            storage.write_shard(url, header, 3, *formula.rows(header, 21, 28))
        assert objects(url) == sound


def test_two_processes_write_one_coupling(format, bucket):
    writers = [
        subprocess.Popen(
            [sys.executable, SCRIPT, bucket, format, shard_size, "40", "3"],
            env=os.environ | {"PYTHONPATH": str(SCRIPT.parents[2])},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for shard_size in ("7", "10")
    ]
    for writer in writers:
        _, errors = writer.communicate(timeout=120)
        assert writer.returncode == 0, errors
    for k in range(3):
        url = storage.pairs_url(bucket, f"{k:064x}", format)
        assert storage.verify_pairs(url, progress=False).ok
        pairs = storage.open_pairs(url)
        np.testing.assert_array_equal(np.asarray(pairs.source), formula.rows(pairs.manifest)[0])


def test_the_first_of_many_creators_wins(bucket):
    """A conditional put, and no look before it that another writer could slip past."""
    folder = open_folder(f"{bucket}/create")
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda number: folder.create("_header.json", b"%d" % number), range(16)))
    assert made.count(True) == 1
    assert folder.read("_header.json") == b"%d" % made.index(True)
    assert not folder.create("_header.json", b"another")


def test_other_libraries_read_it_from_there(bucket, server):
    """In a process of its own, in which there is none of our code."""
    urls = [formula.write(bucket, formula.header(format, 7)) for format in ("zarr", "parquet")]
    code = (
        "import json, sys, pandas, zarr\n"
        "source = zarr.open_group(sys.argv[1], mode='r')['source'][:]\n"
        "frame = pandas.read_parquet(sys.argv[2] + '/part-00001.parquet')\n"
        "print(json.dumps([source.tolist(), frame['sample_id'].tolist(), 'storage' in sys.modules]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *urls], capture_output=True, text=True, check=True)
    source, ids, ours = json.loads(done.stdout.splitlines()[-1])
    np.testing.assert_array_equal(source, formula.rows(formula.header("zarr"))[0])
    assert (ids, ours) == (list(range(7, 14)), False)


def test_housekeeping(bucket, objects):
    whole = formula.write(bucket, formula.header("parquet", 7))
    part = storage.pairs_url(bucket, "cd" * 32, "zarr")
    storage.begin_pairs(part, formula.header("zarr", 7, fingerprint="cd" * 32))
    inventory = storage.take_inventory(bucket)
    assert {each.url: each.state for each in inventory.couplings} == {whole: "complete", part: "partial"}
    (found,) = storage.find_garbage(inventory, older_than_s=-60)
    storage.remove(bucket, found)
    assert objects(part) == {}
    copy = storage.export_pairs(whole, "zarr", store_url=bucket, shard_size=9, progress=False)
    assert storage.open_pairs(copy).manifest.content_sha256 == storage.open_pairs(whole).manifest.content_sha256


def test_credentials_are_in_no_object_and_no_log(format, bucket, server, objects):
    """Of a process that logs all it can, and ends with an error message."""
    code = (
        "import logging, sys, storage_formula as f, storage\n"
        "logging.basicConfig(level=logging.INFO, stream=sys.stdout)\n"
        f"url = f.write({bucket!r}, f.header({format!r}, 7))\n"
        "print(storage.open_pairs(url), storage.verify_pairs(url), storage.find_manifest(url))\n"
        "storage.open_pairs('s3://no-such-bucket/store')\n"
    )
    environment = os.environ | {"PYTHONPATH": f"{SCRIPT.parents[2]}:{SCRIPT.parent}"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "StoreError" in done.stderr, done.stderr
    stored = objects(bucket)
    assert any(name.endswith("_manifest.json") for name in stored)
    told = done.stdout + done.stderr
    for secret in (s3_server.ACCESS_KEY, s3_server.SECRET_KEY, server["AWS_ENDPOINT_URL"]):
        assert secret not in told
        assert not [name for name, data in stored.items() if secret.encode() in data]


def test_a_bucket_that_is_not_there_is_not_made(bucket, client):
    with pytest.raises(StoreError, match=r"cannot write s3://no-such-bucket/.*make the bucket"):
        formula.write("s3://no-such-bucket/store", formula.header("parquet"))
    assert "no-such-bucket" not in {found["Name"] for found in client.list_buckets()["Buckets"]}
    with pytest.raises(StoreError, match="no pairs at"):
        storage.open_pairs(f"{bucket}/pairs/nothing.zarr")


def test_keys_that_are_not_set(bucket):
    environment = {name: value for name, value in os.environ.items() if "ACCESS_KEY" not in name}
    command = [sys.executable, "-c", f"import storage; storage.open_pairs('{bucket}/pairs/nothing.zarr')"]
    done = subprocess.run(command, env=environment, cwd=SCRIPT.parents[2], capture_output=True, text=True, check=False)
    assert re.search(r"StoreError: cannot read s3://.*credentials are set in the environment", done.stderr), done.stderr
