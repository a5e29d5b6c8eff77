"""Other libraries read the pairs without any of our code, and do not stumble over the store's own files."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas
import pyarrow.dataset
import pyarrow.parquet
import pytest
import zarr

from . import storage_formula as formula


@pytest.fixture(params=["store", ".hidden/store", "odd #1 [x] ü/store"])
def folder(request, tmp_path) -> str:
    return str(tmp_path / request.param)


def test_zarr_opens_the_group(folder):
    header = formula.header("zarr")
    source, target, ids = formula.rows(header)
    group: Any = zarr.open_group(formula.write(folder, header), mode="r")
    assert dict(group.arrays()).keys() == {"sample_id", "source", "target"}
    np.testing.assert_array_equal(group["source"][:], source)
    np.testing.assert_array_equal(group["target"][5:20:2], target[5:20:2])
    np.testing.assert_array_equal(group["sample_id"][:], ids)
    assert group["source"].dtype == np.uint8
    assert group["source"].shards == (7, 6)
    assert group.attrs["pairflow"]["fingerprint"] == header.fingerprint


def test_zarr_opens_an_array_by_its_own_metadata(tmp_path):
    url = formula.write(str(tmp_path), formula.header("zarr", 16))
    array = zarr.open_array(Path(url) / "target", mode="r")
    np.testing.assert_array_equal(array[:], formula.rows(formula.header("zarr"))[1])
    described = json.loads((Path(url) / "target" / "zarr.json").read_text())
    (sharding,) = described["codecs"]
    assert sharding["name"] == "sharding_indexed"
    assert [codec["name"] for codec in sharding["configuration"]["codecs"]] == ["bytes", "zstd"]
    assert sorted(path.name for path in (Path(url) / "target").iterdir()) == ["c.0.0", "c.1.0", "c.2.0", "zarr.json"]


def test_inner_chunks_divide_shards():
    from storage.zarr_shards import chunk_rows

    assert chunk_rows(10_000, 32) == 1000
    assert chunk_rows(1024 * 9, 32) == 1024
    assert chunk_rows(10_000, 3072) == 80  # 256 KiB
    assert chunk_rows(7, 10**9) == 1
    assert chunk_rows(10_007, 32) == 10_007  # a prime: one chunk rather than thousands
    for shard_rows in range(1, 3000, 13):
        assert shard_rows % chunk_rows(shard_rows, 784) == 0


def test_pandas_and_arrow_open_the_folder(folder):
    header = formula.header("parquet")
    url = formula.write(folder, header)
    source, target, ids = formula.rows(header)
    frame = pandas.read_parquet(url)
    assert list(frame.columns) == ["sample_id", "target", "source"]
    np.testing.assert_array_equal(np.stack(list(frame["source"])), source)
    np.testing.assert_array_equal(frame["sample_id"], ids)
    dataset = pyarrow.dataset.dataset(url)
    table = dataset.to_table(filter=pyarrow.dataset.field("sample_id") >= 30)
    assert table.num_rows == 10
    np.testing.assert_array_equal(table["target"].to_pylist(), target[30:])
    assert table.schema.field("target").type.list_size == 6
    assert str(table.schema.field("target").type.value_type) == "uint8"


def test_one_parquet_part_opens_alone_and_states_its_coupling(tmp_path):
    header = formula.header("parquet")
    url = formula.write(str(tmp_path), header)
    part = pyarrow.parquet.ParquetFile(Path(url) / "part-00005.parquet")
    with part:
        stated = json.loads(part.schema_arrow.metadata[b"pairflow.header"])
        np.testing.assert_array_equal(part.read()["sample_id"], range(35, 40))
    assert stated["fingerprint"] == header.fingerprint
    assert stated["spec"]["num_steps"] == 20


def test_plain_readers_agree_in_memory():
    url = formula.write("memory://plain-readers", formula.header("zarr"))
    group: Any = zarr.open_group(url, mode="r")
    np.testing.assert_array_equal(group["source"][:], formula.rows(formula.header("zarr"))[0])
    url = formula.write("memory://plain-readers", formula.header("parquet"))
    assert len(pandas.read_parquet(f"{url}/part-00000.parquet")) == 7


def run_alone(code: str, *arguments: str, **variables: str) -> dict[str, Any]:
    """What a script prints last, as JSON, in a process that has none of our code and no network to speak of."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=environment | variables,
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return document


def test_duckdb_queries_the_folder(folder):
    header = formula.header("parquet")
    url = formula.write(folder, header)
    source, target, ids = formula.rows(header)
    files = {"files": [str(path) for path in sorted(Path(url).glob("part-*.parquet"))]}
    with duckdb.connect() as connection:
        found = connection.sql("SELECT * FROM read_parquet($files) ORDER BY sample_id", params=files)
        types = dict(zip(found.columns, map(str, found.types), strict=True))
        rows = found.fetchall()
        equal = connection.sql(
            "SELECT count(*) FROM read_parquet($files) WHERE source[1] = target[1]", params=files
        ).fetchall()
    assert types == {"sample_id": "BIGINT", "target": "UTINYINT[]", "source": "UTINYINT[]"}
    np.testing.assert_array_equal([row[0] for row in rows], ids)
    np.testing.assert_array_equal([row[1] for row in rows], target)
    np.testing.assert_array_equal([row[2] for row in rows], source)
    assert equal == [(int((source[:, 0] == target[:, 0]).sum()),)]


def test_duckdb_takes_the_pattern_of_the_format_page(tmp_path):
    url = formula.write(str(tmp_path), formula.header("parquet"))
    with duckdb.connect() as connection:
        assert connection.sql(f"SELECT count(*) FROM '{url}/*.parquet'").fetchall() == [(40,)]  # noqa: S608


def test_hugging_face_datasets_load_the_parts(tmp_path):
    header = formula.header("parquet")
    url = formula.write(str(tmp_path / "store"), header)
    code = (
        "import json, sys\n"
        "from datasets import load_dataset\n"
        "parts = {'data_files': sys.argv[1] + '/part-*.parquet', 'split': 'train'}\n"
        "found = load_dataset('parquet', **parts)\n"
        "streamed = load_dataset('parquet', streaming=True, **parts)\n"
        "arrays = found.with_format('numpy')[:]\n"
        "print(json.dumps({'columns': found.column_names, 'source': arrays['source'].tolist(),\n"
        "    'target': arrays['target'].tolist(), 'length': found.features['source'].length,\n"
        "    'dtype': found.features['source'].feature.dtype,\n"
        "    'sample_id': arrays['sample_id'].tolist(), 'streamed': [row['sample_id'] for row in streamed],\n"
        "    'ours': 'storage' in sys.modules}))\n"
    )
    found = run_alone(
        code,
        url,
        HF_HOME=str(tmp_path / "hf"),
        HF_HUB_OFFLINE="1",
        HF_DATASETS_OFFLINE="1",
        HF_HUB_DISABLE_TELEMETRY="1",
    )
    source, target, ids = formula.rows(header)
    assert (found["columns"], found["ours"]) == (["sample_id", "target", "source"], False)
    assert (found["dtype"], found["length"]) == ("uint8", 6)
    np.testing.assert_array_equal(found["source"], source)
    np.testing.assert_array_equal(found["target"], target)
    assert found["sample_id"] == found["streamed"] == ids.tolist()


def test_zarr_and_parquet_say_the_same_without_our_code(tmp_path):
    header = formula.header("zarr", 9, vocab_size=300, num_rows=31)
    urls = [formula.write(str(tmp_path), header.model_copy(update={"format": each})) for each in ("zarr", "parquet")]
    code = (
        "import json, sys, numpy, pyarrow.parquet, zarr\n"
        "group = zarr.open_group(sys.argv[1], mode='r')\n"
        "table = pyarrow.parquet.read_table(sys.argv[2])\n"
        "names = 'source', 'target', 'sample_id'\n"
        "same = {n: bool((group[n][:] == numpy.array(table[n].to_pylist())).all()) for n in names}\n"
        "print(json.dumps(same | {'dtype': str(group['source'].dtype), 'ours': 'storage' in sys.modules}))\n"
    )
    assert run_alone(code, *urls) == {
        "source": True,
        "target": True,
        "sample_id": True,
        "dtype": "uint16",
        "ours": False,
    }
