"""Readers of a user's own files: rows, or a PairFlowError, and nothing half-written in the cache."""

import contextlib
import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

from pairflow import datasets
from pairflow.errors import PairFlowError
from pairflow.spec import DatasetSpec, parse

from .damage import altered, damaged, fuzzed

TOKENS = (np.arange(12 * 4).reshape(12, 4) * 7 % 11).astype(np.uint16)
SMILES = "smiles,name\n" + "".join(f'{"C" * i}O,"a, {i}"\n' for i in range(1, 13))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files")


def _arrow(table: pa.Table, folder: Path) -> bytes:
    pq.write_table(table, folder / "sound.parquet")
    return (folder / "sound.parquet").read_bytes()


def _saved(save: Callable[[Path], None], path: Path) -> bytes:
    save(path)
    return path.read_bytes()


def _sound(kind: str, folder: Path) -> bytes:
    lists = pa.table({"tokens": pa.array(TOKENS.tolist(), pa.list_(pa.uint8())), "text": ["x"] * 12})
    made: dict[str, Callable[[], bytes]] = {
        ".npy": lambda: _saved(lambda path: np.save(path, TOKENS), folder / "sound.npy"),
        ".npz": lambda: _saved(lambda path: np.savez_compressed(path, tokens=TOKENS), folder / "sound.npz"),
        ".parquet": lambda: _arrow(lists, folder),
        ".columns.parquet": lambda: _arrow(pa.table({f"t{i}": TOKENS[:, i] for i in range(4)}), folder),
        ".smi": lambda: SMILES.replace(",", "\t").encode(),
        ".csv": lambda: SMILES.encode(),
        ".tsv": lambda: SMILES.replace(",", "\t").encode("utf-16"),
        ".csv.gz": lambda: gzip.compress(SMILES.encode(), mtime=0),
    }
    return made[kind]()


def _load(path: Path, folder: Path, **fields: object) -> None:
    """Both doors: what is said beforehand, and the rows."""
    spec = parse(DatasetSpec, {"path": str(path), **fields})
    with contextlib.suppress(PairFlowError):
        datasets.check(spec)
    with contextlib.suppress(PairFlowError):
        rows = datasets.load(spec, cache_dir=folder / "cache", progress=False)
        assert rows.tokens.ndim == 2
        assert int(rows.tokens.max()) < rows.vocab_size
    assert list((folder / "cache").rglob("*.tmp")) == []
    shutil.rmtree(folder / "cache", ignore_errors=True)


@pytest.mark.parametrize("kind", [".npy", ".npz", ".parquet", ".columns.parquet"])
@fuzzed
@given(data=st.data())
def test_arrays(folder: Path, kind: str, data: st.DataObject) -> None:
    path = folder / f"rows{kind}"
    path.write_bytes(data.draw(damaged(_sound(kind, folder))))
    _load(path, folder, name="tokens", vocab_size=11, column=data.draw(st.sampled_from([None, None, "tokens", "x"])))


@pytest.mark.parametrize("kind", [".smi", ".csv", ".tsv", ".csv.gz"])
@fuzzed
@given(data=st.data())
def test_text(folder: Path, kind: str, data: st.DataObject) -> None:
    path = folder / f"rows{kind}"
    path.write_bytes(data.draw(damaged(_sound(kind, folder))))
    _load(path, folder, name="smiles", column=data.draw(st.sampled_from([None, None, "name", "\0"])))


@pytest.mark.parametrize("format", [2, 3])
@fuzzed
@given(data=st.data())
def test_zarr(folder: Path, format: Literal[2, 3], data: st.DataObject) -> None:
    path = folder / f"rows{format}.zarr"
    shutil.rmtree(path, ignore_errors=True)
    array = zarr.create_array(path, shape=TOKENS.shape, chunks=(5, 4), dtype="uint16", zarr_format=format)
    array[...] = TOKENS
    files = sorted(each for each in path.rglob("*") if each.is_file())
    chosen = data.draw(st.sampled_from(files))
    if chosen.suffix == ".json" or chosen.name.startswith(".z"):
        document = data.draw(altered(json.loads(chosen.read_text())))
        chosen.write_text(json.dumps(document))
    else:
        chosen.write_bytes(data.draw(damaged(chosen.read_bytes())))
    _load(path, folder, name="tokens", vocab_size=11)


@fuzzed
@given(data=st.data())
def test_vocabularies(folder: Path, data: st.DataObject) -> None:
    np.save(folder / "rows.npy", TOKENS)
    words = json.dumps([f"w{i}" for i in range(11)]).encode()
    (folder / "words.json").write_bytes(data.draw(damaged(words)))
    _load(folder / "rows.npy", folder, name="tokens", vocab_path=str(folder / "words.json"))
