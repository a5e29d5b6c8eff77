"""Whether data are as they were, seen from outside: each kind of change shows, and nothing else does."""

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pairflow import datasets
from pairflow.datasets import outside
from pairflow.spec import DatasetSpec


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if all changes of a test were long ago."""
    monkeypatch.setattr(outside, "_SETTLED_S", 0.0)


def _rows(folder: Path) -> Path:
    path = folder / "rows.npy"
    np.save(path, np.arange(60, dtype=np.uint8).reshape(20, 3) % 5)
    return path


def _spec(path: Path, **fields: object) -> DatasetSpec:
    return DatasetSpec.model_validate({"name": "tokens", "path": str(path), "vocab_size": 5, **fields})


def _changed(path: Path) -> None:
    """Other rows in as many bytes, with the time that the file had before."""
    before = path.stat()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    assert path.stat().st_mtime_ns == before.st_mtime_ns


def _replaced(path: Path) -> None:
    """The file by another one of the same name, as editors write."""
    copy = path.with_suffix(".new")
    shutil.copy2(path, copy)
    _changed(copy)
    copy.rename(path)


@pytest.mark.parametrize("change", [_changed, _replaced, Path.touch])
@pytest.mark.usefixtures("settled")
def test_a_changed_file_shows(tmp_path: Path, change: Callable[[Path], None]) -> None:
    path = _rows(tmp_path)
    before = datasets.identity(_spec(path))
    assert before is not None
    assert datasets.identity(_spec(path)) == before
    time.sleep(0.02)  # a tick of the filesystem's clock
    change(path)
    assert datasets.identity(_spec(path)) not in (None, before)


@pytest.mark.usefixtures("settled")
def test_a_file_more_in_a_folder_shows(tmp_path: Path) -> None:
    first = _rows(tmp_path)
    before = datasets.identity(_spec(tmp_path))
    shutil.copy2(first, tmp_path / "more.npy")
    assert datasets.identity(_spec(tmp_path)) not in (None, before)


@pytest.mark.usefixtures("settled")
def test_a_copy_that_is_read_instead_of_a_download_shows(tmp_path: Path) -> None:
    downloads, data_dir = tmp_path / "downloads", tmp_path / "data"
    for folder in (downloads, data_dir):
        folder.mkdir()
    (downloads / "dsgdb9nsd.xyz.tar.bz2").write_bytes(b"published")
    where = {"data_dir": data_dir, "cache_dir": downloads}
    before = datasets.identity(DatasetSpec(name="qm9"), **where)
    assert before is not None
    (data_dir / "qm9.csv").write_text("smiles\nC\n")
    assert datasets.identity(DatasetSpec(name="qm9"), **where) not in (None, before)


@pytest.mark.usefixtures("settled")
def test_another_question_has_another_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _rows(tmp_path)
    answers = [datasets.identity(_spec(path, **fields)) for fields in ({}, {"max_rows": 7}, {"split_seed": 1})]
    monkeypatch.setattr(outside, "_reader", lambda: {"code": "another release"})
    answers.append(datasets.identity(_spec(path)))
    assert None not in answers
    assert len(set(answers)) == 4


def test_what_cannot_be_told_is_not_said(tmp_path: Path) -> None:
    assert datasets.identity(_spec(tmp_path / "nothing.npy")) is None
    assert datasets.identity(_spec(_rows(tmp_path))) is None  # a second change at once might not show
    assert datasets.identity(DatasetSpec(name="qm9"), data_dir=tmp_path / "none", cache_dir=tmp_path / "no") is None


@pytest.mark.parametrize("name", ["digits", "nci", "patches"])
def test_what_is_packaged_is_known(name: str) -> None:
    first, second = (datasets.identity(DatasetSpec.model_validate({"name": name})) for _ in range(2))
    assert first is not None
    assert first == second
