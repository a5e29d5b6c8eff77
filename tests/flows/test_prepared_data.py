"""How a job comes by the rows of a dataset: found in the store by content, or made and kept there; without servers."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import storage
from flows.home.settings import Settings
from flows.jobs import finished, inputs, prepared_data
from flows.requests import PrepareRequest
from pairflow import datasets
from pairflow.datasets import Preparation, TokenDataset
from pairflow.errors import DatasetError, StoreError
from pairflow.spec import DatasetSpec

ROWS = ["CCO", "C(", "CC", "", "C#N", "C=O", "c1ccccc1"] * 6


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", store_url=str(tmp_path / "store"))


@pytest.fixture
def spec(tmp_path: Path) -> DatasetSpec:
    (tmp_path / "rows.smi").write_text("\n".join(ROWS))
    return DatasetSpec(name="smiles", path=str(tmp_path / "rows.smi"), holdout=0.2)


def _same(one: TokenDataset, other: TokenDataset) -> bool:
    parts = {name: (one.part(name).digest, other.part(name).digest) for name in other.splits}
    return (
        all(a == b for a, b in [(one.digest, other.digest), (one.report, other.report), *parts.values()])
        and (one.name, one.kind, one.vocab, one.image_shape) == (other.name, other.kind, other.vocab, other.image_shape)
        and (one.labels is None) == (other.labels is None)
        and (one.labels is None or np.array_equal(one.labels, np.asarray(other.labels)))
    )


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of datasets whose source is read."""
    names: list[str] = []
    original = prepared_data._make

    def counted(plan: Preparation, *arguments: Any) -> TokenDataset:
        names.append(plan.spec.name)
        return original(plan, *arguments)

    monkeypatch.setattr(prepared_data, "_make", counted)
    return names


@pytest.mark.parametrize("format", ["zarr", "parquet"])
@pytest.mark.parametrize("name", ["digits", "patches", "smiles"])
def test_what_is_kept_is_what_the_library_loads(name, format, spec, settings, read):
    wanted = spec if name == "smiles" else DatasetSpec(name=name, max_rows=500)
    whole = datasets.load(wanted, cache_dir=settings.home, progress=False)
    made, known_as, was_there = prepared_data.open_or_make(wanted, settings, format=format)
    assert _same(made, whole)
    assert not was_there
    assert read == [name]
    found, again, was_there = prepared_data.open_or_make(wanted, settings)
    assert _same(found, whole)
    assert (again, was_there, len(read)) == (known_as, True, 1)
    assert not found.tokens.flags.writeable


def test_the_same_content_elsewhere_is_found_and_said_to_be_there(spec, settings, tmp_path, read):
    prepared_data.open_or_make(spec, settings)
    (tmp_path / "other").mkdir()
    moved = (tmp_path / "rows.smi").rename(tmp_path / "other" / "rows.smi")
    found, _, was_there = prepared_data.open_or_make(spec.model_copy(update={"path": str(moved)}), settings)
    assert was_there
    assert found.report.source == str(moved)
    moved.write_text("\n".join(ROWS[1:]))
    _, _, was_there = prepared_data.open_or_make(spec.model_copy(update={"path": str(moved)}), settings)
    assert not was_there


def test_files_that_are_being_written_beside_the_others_do_not_count(settings, tmp_path):
    folder = tmp_path / "arrays"
    folder.mkdir()
    np.save(folder / "a.npy", np.arange(60).reshape(20, 3) % 5)
    spec = DatasetSpec(name="tokens", path=str(folder), vocab_size=5)
    _, known_as, _ = prepared_data.open_or_make(spec, settings)
    (folder / "_b.npy").write_bytes(b"half")
    assert prepared_data.open_or_make(spec, settings)[1:] == (known_as, True)
    np.save(folder / "b.npy", np.zeros((1, 3), int))
    assert prepared_data.open_or_make(spec, settings)[2] is False


def test_another_choice_of_rows_does_not_read_the_source_again(spec, settings, read, tmp_path):
    for fields in ({"max_rows": 20}, {"split_seed": 4}, {"max_rows": 9, "holdout": 0.5}, {}):
        chosen = spec.model_copy(update={"holdout": 0.3, **fields})
        made, _, _ = prepared_data.open_or_make(chosen, settings)
        assert _same(made, datasets.load(chosen, cache_dir=tmp_path / "cache", progress=False))
    assert read == ["smiles"]


def test_rows_that_cannot_be_split_as_by_default_are_made_for_the_spec_alone(settings, tmp_path, read):
    (tmp_path / "few.smi").write_text("CC\nCCO\nC\n")
    spec = DatasetSpec(name="smiles", path=str(tmp_path / "few.smi"), holdout=0.5)
    made, _, _ = prepared_data.open_or_make(spec, settings)
    assert len(made) == 3
    with pytest.raises(DatasetError, match="3 rows are too few to split"):
        prepared_data.open_or_make(spec.model_copy(update={"holdout": None}), settings)


@pytest.mark.parametrize("name", ["_manifest.json", "tokens/c.0.0", "held_out/c.0"])
def test_damage_is_named_and_made_good(name, spec, settings, caplog):
    made, known_as, _ = prepared_data.open_or_make(spec, settings)
    path = Path(storage.dataset_url(settings.store, known_as)) / name
    sound = path.read_bytes()
    path.write_bytes(sound[:-1] + bytes([sound[-1] ^ 1]))
    request = PrepareRequest(dataset=spec)
    assert finished.find_prepared(request, settings) is None
    with caplog.at_level(logging.WARNING):
        found, _, was_there = prepared_data.open_or_make(spec, settings)
    assert not was_there
    assert str(path) in caplog.text
    assert "it is made again now" in caplog.text
    assert _same(found, made)
    assert path.read_bytes() == sound


def test_a_store_that_cannot_be_written(spec, settings, tmp_path):
    (tmp_path / "file").touch()
    closed = settings.model_copy(update={"store_url": str(tmp_path / "file" / "store")})
    with pytest.raises(StoreError, match=r"cannot (read|write) .*a file lies where a folder is needed"):
        prepared_data.open_or_make(spec, closed)


def test_data_that_memory_does_not_hold_is_refused_before_it_is_read(spec, settings, monkeypatch):
    _, known_as, _ = prepared_data.open_or_make(spec, settings)
    manifest = storage.find_dataset(storage.dataset_url(settings.store, known_as))
    assert manifest is not None
    large = manifest.model_copy(update={"num_rows": 10**12})
    monkeypatch.setattr(storage, "find_dataset", lambda url: large)
    with pytest.raises(DatasetError, match=r"1,000,000,000,000 rows of smiles, prepared at .* GiB of memory"):
        prepared_data.open_or_make(spec, settings)


def test_a_job_remembers_where_the_rows_are_and_is_found_finished(spec, settings, monkeypatch, tmp_path):
    """Without hashing the source again, as long as it shows from outside that it has not changed."""
    import os
    import time

    for path in (tmp_path / "rows.smi",):
        os.utime(path, (time.time() - 100,) * 2)
    monkeypatch.setattr("pairflow.datasets.outside._SETTLED_S", 0.0)
    made, was_there = inputs.prepare(spec, settings)
    assert not was_there
    found = finished.find_prepared(PrepareRequest(dataset=spec), settings)
    assert found is not None
    assert (found.result.url, found.result.skipped) == (made.url, True)
    assert found.result.digests["train"] == made.train.digest
    monkeypatch.setattr(Preparation, "fingerprint", lambda self: pytest.fail("hashed"))
    again, was_there = inputs.prepare(spec, settings)
    assert was_there
    assert again.facts == made.facts
