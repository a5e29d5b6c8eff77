"""Files at a URL that fsspec knows; in memory, which is as far from a disk as any."""

import errno
import glob
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from pairflow.errors import DatasetError

from .smiles_rows import folder, in_pieces, own, plan_of

__all__ = ["folder"]


@pytest.fixture
def remote(folder: Path) -> Iterator[Any]:
    filesystem = fsspec.filesystem("memory")
    filesystem.put(str(folder), "/molecules", recursive=True)
    yield filesystem
    filesystem.rm("/molecules", recursive=True)


@pytest.mark.parametrize("below", ["", "/b.smi", "/*.csv"])
def test_rows_are_those_of_the_same_files_here(remote, folder, tmp_path, below):
    there = plan_of(own(Path("x")).model_copy(update={"path": f"memory://molecules{below}"}), tmp_path)
    here = plan_of(own(Path(f"{folder}{below}")), tmp_path)
    assert in_pieces(there, 1000).digest == in_pieces(here, 1000).digest
    assert there.fingerprint() == here.fingerprint()
    assert there.source.source == f"memory://molecules{below}"


@pytest.mark.parametrize("below", ["*/rows.smi", "202?/*.smi", "**/rows.smi", "2024/rows.smi"])
def test_files_of_one_name_in_several_folders(remote, tmp_path, below):
    for number, year in enumerate(("2024", "2023", ".2022")):
        place = tmp_path / "here [1]" / year
        place.mkdir(parents=True)
        (place / "rows.smi").write_text(f"{'C' * (number + 1)}O\n" * 40)
        remote.pipe_file(f"/molecules/years/{year}/rows.smi", (place / "rows.smi").read_bytes())
    there = own(Path("x")).model_copy(update={"path": f"memory://molecules/years/{below}"})
    here = own(Path(f"{glob.escape(str(tmp_path / 'here [1]'))}/{below}"))
    copied = plan_of(there, tmp_path / "cache [1]")
    assert list(copied.pieces()) == list(plan_of(here, tmp_path).pieces())
    assert copied.fingerprint() == plan_of(here, tmp_path).fingerprint()


def test_a_file_that_is_there_is_no_pattern(remote, tmp_path):
    remote.pipe_file("/molecules/rows [1].smi", b"CCO\n")
    remote.pipe_file("/molecules/rows 1.smi", b"CCC\n")
    plan = plan_of(own(Path("x")).model_copy(update={"path": "memory://molecules/rows [1].smi"}), tmp_path)
    assert [piece.rows for piece in plan.pieces()] == [["CCO"]]


@pytest.mark.parametrize("below", ["*", "**"])
def test_a_folder_that_a_pattern_fits_is_refused_as_on_a_disk(remote, tmp_path, below):
    remote.pipe_file("/molecules/only/2024/rows.smi", b"CCO\n")
    remote.pipe_file("/molecules/only/rows.smi", b"CCO\n" * 40)
    spec = own(Path("x")).model_copy(update={"path": f"memory://molecules/only/{below}"})
    for _ in range(2):  # the second meets the copies of the first
        with pytest.raises(DatasetError, match="is a folder, expected only files"):
            plan_of(spec, tmp_path)
    remote.rm("/molecules/only/2024", recursive=True)
    if below == "*":
        assert in_pieces(plan_of(spec, tmp_path), 1000).report.rows_read == 40


def test_two_that_copy_at_once_do_not_meet(remote, tmp_path, monkeypatch):
    spec = own(Path("x")).model_copy(update={"path": "memory://molecules/b.smi"})
    get_file = type(remote).get_file
    others: list[str] = []

    def overtaken(self, name, local, **options):
        get_file(self, name, local, **options)
        if not others:
            others.append(local)
            others.append(in_pieces(plan_of(spec, tmp_path), 1000).digest)

    monkeypatch.setattr(type(remote), "get_file", overtaken)
    assert in_pieces(plan_of(spec, tmp_path), 1000).digest == others[1]
    assert not list(tmp_path.rglob("*.partial"))


@pytest.mark.parametrize("below", ["", "/**/*.smi"])
def test_a_name_never_leads_out_of_the_cache(remote, tmp_path, below):
    """An object store lets names hold what a disk takes for the folder above."""
    remote.store["/molecules/a/../../../../../stolen.smi"] = remote.store["/molecules/b.smi"]
    remote.pseudo_dirs += [f"/molecules/a{'/..' * number}" for number in range(5)]
    try:
        with pytest.raises(DatasetError, match="outside of the cache"):
            plan_of(own(Path("x")).model_copy(update={"path": f"memory://molecules{below}"}), tmp_path)
    finally:
        del remote.store["/molecules/a/../../../../../stolen.smi"]
        remote.pseudo_dirs[:] = [each for each in remote.pseudo_dirs if ".." not in each]
    assert not list(tmp_path.rglob("stolen*"))


def test_a_copy_that_breaks_off_leaves_nothing(remote, tmp_path, monkeypatch):
    def broken(self, name, local, **options):
        Path(local).write_bytes(b"CC")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(type(remote), "get_file", broken)
    with pytest.raises(DatasetError, match="No space left"):
        plan_of(own(Path("x")).model_copy(update={"path": "memory://molecules/b.smi"}), tmp_path)
    assert not [each for each in (tmp_path / "cache").rglob("*") if each.is_file()]


def test_what_changes_there_is_copied_again(remote, tmp_path):
    spec = own(Path("x")).model_copy(update={"path": "memory://molecules"})
    assert in_pieces(plan_of(spec, tmp_path), 1000).report.rows_read == 401
    remote.pipe_file("/molecules/b.smi", b"CCO\nCC\n" * 3)
    assert in_pieces(plan_of(spec, tmp_path), 1000).report.rows_read == 206
    remote.rm_file("/molecules/a.csv")
    assert in_pieces(plan_of(spec, tmp_path), 1000).report.rows_read == 6


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("memory://molecules/none.smi", "memory://molecules/none.smi does not exist"),
        ("nosuch://a/b.smi", "cannot be read: .*fsspec"),
        ("memory://me:secret@a/b.smi", "carries a password"),
    ],
)
def test_what_is_refused(remote, tmp_path, url, says):
    with pytest.raises(DatasetError, match=says) as refused:
        plan_of(own(Path("x")).model_copy(update={"path": url}), tmp_path)
    assert "secret" not in str(refused.value)
