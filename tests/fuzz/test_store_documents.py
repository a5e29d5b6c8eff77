"""A store that somebody has damaged: a PairFlowError or the truth, never another's rows, and nothing half-written."""

import contextlib
import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import storage
from pairflow.errors import PairFlowError

from .damage import altered, damaged, fuzzed

ROWS = (np.arange(20 * 3).reshape(20, 3) % 7).astype(np.uint8)
DOCUMENTS = ["_header.json", "_records/00001.json", "_manifest.json"]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("store")
    wanted = storage.PairsHeader(
        fingerprint="ab" * 32,
        format="parquet",
        num_rows=20,
        length=3,
        vocab_size=7,
        shard_size=9,
        spec={"kind": "closed_form"},
        dataset={"name": "fuzz", "digest": "cd" * 32},
        engine="cpu/1",
    )
    url = storage.pairs_url(store, wanted.fingerprint, wanted.format)
    header = storage.begin_pairs(url, wanted)
    for shard in header.plan():
        rows = slice(shard.start, shard.stop)
        storage.write_shard(url, header, shard.index, ROWS[rows], ROWS[rows], np.arange(20)[rows])
    storage.commit_pairs(url, header, {"seconds": 1.0}, progress=False)
    return Path(url)


def _with_its_hash(document: dict[str, object]) -> bytes:
    """As `document_sha256` is defined in docs/format.md, computed here anew."""
    zeros = "0" * 64
    text = json.dumps(document | {"document_sha256": zeros}, indent=2, sort_keys=True) + "\n"
    return text.replace(zeros, hashlib.sha256(text.encode()).hexdigest(), 1).encode()


def _use(url: Path) -> None:
    """Everything that reads a coupling; what is read is right."""
    with contextlib.suppress(PairFlowError):
        pairs = storage.open_pairs(url)
        if len(pairs) == 20:  # else the manifest was altered and given a hash of its own
            np.testing.assert_array_equal(np.asarray(pairs.source), ROWS)
    for action in (storage.read_header, storage.find_manifest, lambda it: storage.verify_pairs(it, progress=False)):
        with contextlib.suppress(PairFlowError):
            action(url)
    inventory = storage.take_inventory(url.parents[1])
    assert all(each.state in ("complete", "partial", "damaged") for each in inventory.couplings)
    with contextlib.suppress(PairFlowError):
        storage.restore_pairs(url)
    assert list(url.rglob("*.tmp")) == []


@pytest.mark.parametrize("name", [*DOCUMENTS, "part-00001.parquet"])
@fuzzed
@given(data=st.data())
def test_damaged_files(sound: Path, tmp_path_factory: pytest.TempPathFactory, name: str, data: st.DataObject) -> None:
    url = tmp_path_factory.mktemp("copy") / "pairs" / sound.name
    shutil.copytree(sound, url)
    (url / name).write_bytes(data.draw(damaged((url / name).read_bytes())))
    _use(url)
    shutil.rmtree(url.parents[1])


@pytest.mark.parametrize("name", DOCUMENTS)
@fuzzed
@given(data=st.data())
def test_documents_that_say_something_else_under_a_right_hash(
    sound: Path, tmp_path_factory: pytest.TempPathFactory, name: str, data: st.DataObject
) -> None:
    url = tmp_path_factory.mktemp("copy") / "pairs" / sound.name
    shutil.copytree(sound, url)
    document = data.draw(altered(json.loads((url / name).read_text())))
    (url / name).write_bytes(_with_its_hash(document) if isinstance(document, dict) else json.dumps(document).encode())
    _use(url)
    shutil.rmtree(url.parents[1])
