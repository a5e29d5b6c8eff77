"""Rows prepared in pieces are those of reading the source in one go, however it is cut; and the files with them."""

import bz2
import errno
import glob
import gzip
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from rdkit import Chem

from pairflow import datasets
from pairflow.datasets import Preparation, TokenDataset, pieces
from pairflow.datasets.smiles_files import iterate_smiles
from pairflow.errors import DatasetError
from pairflow.spec import DatasetSpec

SMILES = ["CCO", "c1cc[nH]c1", "", "nonsense", "C" * 90, "[13CH4]", "CC\u00e9", "ClCBr", "C(", "N->[Pt]<-N", "F/C=C\\F"]
ROWS = [SMILES[number * 7 % len(SMILES)] for number in range(200)]


def _own(path: Path, **fields: object) -> DatasetSpec:
    return DatasetSpec.model_validate({"name": "smiles", "path": str(path), "holdout": 0.2, **fields})


def _plan(spec: DatasetSpec, tmp_path: Path) -> Preparation:
    return datasets.prepare(spec, cache_dir=tmp_path / "cache", progress=False)


def _in_pieces(plan: Preparation, piece_bytes: int) -> TokenDataset:
    assert plan.recipe is not None
    recipe = plan.recipe
    return plan.assemble(pieces.prepare(piece, recipe) for piece in plan.pieces(piece_bytes))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two files, of which one table has fields with line ends, commas and quotes in them."""
    folder = tmp_path / "rows"
    folder.mkdir()
    table = ["name,smiles"]
    table += [f'"a ""b"",\nc {number}",{smiles}' for number, smiles in enumerate(ROWS)]
    (folder / "a.csv").write_text("\n".join(table), encoding="utf-8")
    (folder / "b.smi").write_text(
        "\n".join(f"{smiles} x" if smiles else "" for smiles in ROWS) + "\nO=C=O\n", encoding="utf-8"
    )
    return folder


@pytest.mark.parametrize("piece_bytes", [1, 50, 997, 1 << 20])
def test_any_cut_gives_the_same(folder, tmp_path, piece_bytes):
    """The oracle counts rows by hand and knows where each stands; `load` has never seen a piece of part of a file."""
    spec = _own(folder, max_rows=150, split_seed=3)
    whole = datasets.load(spec, cache_dir=tmp_path / "cache", progress=False)
    found = _in_pieces(_plan(spec, tmp_path), piece_bytes)
    assert found.digest == whole.digest
    assert found.report == whole.report
    assert found.vocab == whole.vocab
    for part in ("train", "test"):
        np.testing.assert_array_equal(found.splits[part], whole.splits[part])
    assert found.report.rows_read == 401
    assert found.report.dropped["empty"] == 2 * ROWS.count("")
    assert found.report.dropped["not read by RDKit"] == 2 * (ROWS.count("nonsense") + ROWS.count("C("))
    all_rows = _plan(spec, tmp_path).of_all_rows
    assert all_rows is not None
    chosen = _plan(spec, tmp_path).choose(_in_pieces(all_rows, piece_bytes))
    assert (chosen.digest, chosen.part("train").digest) == (whole.digest, whole.part("train").digest)
    assert chosen.report == whole.report
    bad = [number for number, smiles in enumerate(ROWS) if smiles in ("nonsense", "C(")]
    expected = tuple(f"a.csv row {number}: {ROWS[number]!r}" for number in bad[:3])
    assert found.report.examples["not read by RDKit"] == expected


def test_rows_and_vocabulary_are_those_that_the_text_says(folder, tmp_path):
    found = _in_pieces(_plan(_own(folder), tmp_path), 50)
    kept = [smiles for smiles in ROWS if smiles in ("CCO", "c1cc[nH]c1", "[13CH4]", "ClCBr", "N->[Pt]<-N", "F/C=C\\F")]
    assert found.decode(found.tokens) == [*kept, *kept, "O=C=O"]
    tokens = ["->", "/", "1", "<-", "=", "Br", "C", "Cl", "F", "N", "O", "[13CH4]", "[Pt]", "[nH]", "\\", "c"]
    assert found.vocab is not None
    assert found.vocab.tokens == ("<bos>", "<eos>", "<pad>", *tokens)


def test_the_fingerprint_is_of_content_and_spec_and_not_of_the_place(folder, tmp_path):
    before = _plan(_own(folder), tmp_path).fingerprint()
    moved = folder.rename(tmp_path / "elsewhere")
    assert _plan(_own(moved), tmp_path).fingerprint() == before
    assert _plan(_own(moved, max_length=20), tmp_path).fingerprint() != before
    (moved / "b.smi").write_text("CCO\n")
    assert _plan(_own(moved), tmp_path).fingerprint() != before


def _zstd(data: bytes) -> bytes:
    return bytes(pa.compress(data, codec="zstd", asbytes=True))


COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {".gz": gzip.compress, ".bz2": bz2.compress, ".zst": _zstd}


@pytest.mark.parametrize("ending", COMPRESSORS)
@pytest.mark.parametrize("kind", [".smi", ".csv"])
def test_compressed(tmp_path, ending, kind):
    text = ("smiles\n" if kind == ".csv" else "") + "CCO\nCC\n" * 5000
    path = tmp_path / f"a{kind}{ending}"
    path.write_bytes(COMPRESSORS[ending](text.encode()))
    assert list(iterate_smiles(path)) == ["CCO", "CC"] * 5000
    path.write_bytes(COMPRESSORS[ending](text.encode())[:-9])
    with pytest.raises(DatasetError, match=rf"a{kind}{ending} is damaged"):
        list(iterate_smiles(path))


def _write_columns(path: Path, table: pa.Table) -> None:
    if path.suffix == ".parquet":
        pq.write_table(table, path, row_group_size=3)
    elif path.suffix == ".feather":
        pyarrow.feather.write_feather(table, str(path))
    else:
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=4)


@pytest.mark.parametrize("ending", [".parquet", ".arrow", ".feather"])
def test_columns_of_strings(tmp_path, ending):
    path = tmp_path / f"a{ending}"
    rows = ["CCO x", None, "CC", "C#N"] * 3
    kinds = {"plain": pa.array(rows), "large": pa.array(rows, pa.large_string())}
    kinds["categories"] = pa.array(rows).dictionary_encode()
    for column in kinds.values():
        _write_columns(path, pa.table({"id": list(range(12)), "SMILES": column, "name": ["n"] * 12}))
        assert list(iterate_smiles(path)) == ["CCO", "", "CC", "C#N"] * 3
    _write_columns(path, pa.table({"id": list(range(12)), "structure": rows}))
    assert list(iterate_smiles(path)) == ["CCO", "", "CC", "C#N"] * 3  # the only one of strings
    _write_columns(path, pa.table({"one": rows, "two": rows}))
    assert list(iterate_smiles(path, column="two"))[:2] == ["CCO", ""]
    refused = {
        None: r"has 2 columns that it may be, \['one', 'two'\]; .*--column",
        "three": r"has columns \['one', 'two'\], expected one named 'three'",
    }
    for column, says in refused.items():
        with pytest.raises(DatasetError, match=says):
            list(iterate_smiles(path, column=column))
    _write_columns(path, pa.table({"smiles": list(range(12))}))
    with pytest.raises(DatasetError, match="column 'smiles' holds int64, expected strings"):
        list(iterate_smiles(path))
    _write_columns(path, pa.table({"smiles": rows}))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DatasetError, match=f"a{ending} cannot be read"):
        list(iterate_smiles(path))


def test_structures_of_an_sd_file(tmp_path):
    """Molecules of which only coordinates and bonds are written; RDKit's own canonical SMILES is the oracle."""
    smiles = ["OCC", "C1CC1", "c1ccccc1O"]
    path = tmp_path / "a.sdf"
    with Chem.SDWriter(str(path)) as writer:
        for each in smiles:
            writer.write(Chem.MolFromSmiles(each))
    record = "a title\n  nothing\n\n  9  0  0  0  0  0  0  0  0  0999 V2000\nM  END\n$$$$\n"
    path.write_text(path.read_text() + record)
    found = _in_pieces(_plan(_own(path), tmp_path), 100)
    assert found.decode(found.tokens) == [Chem.CanonSmiles(each) for each in smiles]
    assert found.report.examples == {"not read by RDKit": ("a.sdf row 3: 'a title'",)}
    assert found.digest == datasets.load(_own(path), cache_dir=tmp_path / "cache", progress=False).digest
    path.write_text(path.read_text()[:-6])
    with pytest.raises(DatasetError, match=r"its last record does not end with \$\$\$\$"):
        _in_pieces(_plan(_own(path), tmp_path), 100)


def test_a_pattern_and_a_folder_of_mixed_kinds(folder, tmp_path):
    (folder / "_passed_over.smi").write_text("C\n")
    found = _in_pieces(_plan(_own(folder / "*.smi"), tmp_path), 1000)
    assert found.report.rows_read == 201
    with pytest.raises(DatasetError, match=r"the pattern .*\*\.smiles has no finished file"):
        _plan(_own(folder / "*.smiles"), tmp_path)
    pq.write_table(pa.table({"smiles": ["C"]}), folder / "c.parquet")
    with pytest.raises(
        DatasetError, match=r"2 kinds \(text, such as b\.smi; Parquet or Arrow, such as c\.parquet\).*own"
    ):
        _plan(_own(folder), tmp_path)


@pytest.mark.parametrize("grows", [True, False])
def test_a_file_that_changes_while_it_is_read(folder, tmp_path, grows):
    path = folder / "b.smi"
    plan = _plan(_own(path), tmp_path)
    plan.fingerprint()

    def changing() -> Iterator[pieces.Piece]:
        for number, piece in enumerate(plan.pieces(100)):
            if number == 3:
                text = path.read_text(encoding="utf-8")
                path.write_text(text + "CCC\n" if grows else text.replace("CCO", "CCN"), encoding="utf-8")
            yield piece

    with pytest.raises(DatasetError, match=r"b\.smi was changed while it was read"):
        list(changing())


def test_what_does_not_fit_memory_is_said_before(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(pieces, "free_memory", lambda: 1000)
    with pytest.raises(DatasetError, match=r"rows of 74 tokens take .* GiB of memory.*dataset\.max_rows"):
        _in_pieces(_plan(_own(folder), tmp_path), 1000)


class TestUrl:
    """Files at a URL that fsspec knows; in memory, which is as far from a disk as any."""

    @pytest.fixture
    def remote(self, folder: Path) -> Iterator[Any]:
        filesystem = fsspec.filesystem("memory")
        filesystem.put(str(folder), "/molecules", recursive=True)
        yield filesystem
        filesystem.rm("/molecules", recursive=True)

    @pytest.mark.parametrize("below", ["", "/b.smi", "/*.csv"])
    def test_rows_are_those_of_the_same_files_here(self, remote, folder, tmp_path, below):
        there = _plan(_own(Path("x")).model_copy(update={"path": f"memory://molecules{below}"}), tmp_path)
        here = _plan(_own(Path(f"{folder}{below}")), tmp_path)
        assert _in_pieces(there, 1000).digest == _in_pieces(here, 1000).digest
        assert there.fingerprint() == here.fingerprint()
        assert there.source.source == f"memory://molecules{below}"

    @pytest.mark.parametrize("below", ["*/rows.smi", "202?/*.smi", "**/rows.smi", "2024/rows.smi"])
    def test_files_of_one_name_in_several_folders(self, remote, tmp_path, below):
        for number, year in enumerate(("2024", "2023", ".2022")):
            place = tmp_path / "here [1]" / year
            place.mkdir(parents=True)
            (place / "rows.smi").write_text(f"{'C' * (number + 1)}O\n" * 40)
            remote.pipe_file(f"/molecules/years/{year}/rows.smi", (place / "rows.smi").read_bytes())
        there = _own(Path("x")).model_copy(update={"path": f"memory://molecules/years/{below}"})
        here = _own(Path(f"{glob.escape(str(tmp_path / 'here [1]'))}/{below}"))
        copied = _plan(there, tmp_path / "cache [1]")
        assert list(copied.pieces()) == list(_plan(here, tmp_path).pieces())
        assert copied.fingerprint() == _plan(here, tmp_path).fingerprint()

    def test_a_file_that_is_there_is_no_pattern(self, remote, tmp_path):
        remote.pipe_file("/molecules/rows [1].smi", b"CCO\n")
        remote.pipe_file("/molecules/rows 1.smi", b"CCC\n")
        plan = _plan(_own(Path("x")).model_copy(update={"path": "memory://molecules/rows [1].smi"}), tmp_path)
        assert [piece.rows for piece in plan.pieces()] == [["CCO"]]

    @pytest.mark.parametrize("below", ["*", "**"])
    def test_a_folder_that_a_pattern_fits_is_refused_as_on_a_disk(self, remote, tmp_path, below):
        remote.pipe_file("/molecules/only/2024/rows.smi", b"CCO\n")
        remote.pipe_file("/molecules/only/rows.smi", b"CCO\n" * 40)
        spec = _own(Path("x")).model_copy(update={"path": f"memory://molecules/only/{below}"})
        for _ in range(2):  # the second meets the copies of the first
            with pytest.raises(DatasetError, match="is a folder, expected only files"):
                _plan(spec, tmp_path)
        remote.rm("/molecules/only/2024", recursive=True)
        if below == "*":
            assert _in_pieces(_plan(spec, tmp_path), 1000).report.rows_read == 40

    def test_two_that_copy_at_once_do_not_meet(self, remote, tmp_path, monkeypatch):
        spec = _own(Path("x")).model_copy(update={"path": "memory://molecules/b.smi"})
        get_file = type(remote).get_file
        others: list[str] = []

        def overtaken(self, name, local, **options):
            get_file(self, name, local, **options)
            if not others:
                others.append(local)
                others.append(_in_pieces(_plan(spec, tmp_path), 1000).digest)

        monkeypatch.setattr(type(remote), "get_file", overtaken)
        assert _in_pieces(_plan(spec, tmp_path), 1000).digest == others[1]
        assert not list(tmp_path.rglob("*.partial"))

    @pytest.mark.parametrize("below", ["", "/**/*.smi"])
    def test_a_name_never_leads_out_of_the_cache(self, remote, tmp_path, below):
        """An object store lets names hold what a disk takes for the folder above."""
        remote.store["/molecules/a/../../../../../stolen.smi"] = remote.store["/molecules/b.smi"]
        remote.pseudo_dirs += [f"/molecules/a{'/..' * number}" for number in range(5)]
        try:
            with pytest.raises(DatasetError, match="outside of the cache"):
                _plan(_own(Path("x")).model_copy(update={"path": f"memory://molecules{below}"}), tmp_path)
        finally:
            del remote.store["/molecules/a/../../../../../stolen.smi"]
            remote.pseudo_dirs[:] = [each for each in remote.pseudo_dirs if ".." not in each]
        assert not list(tmp_path.rglob("stolen*"))

    def test_a_copy_that_breaks_off_leaves_nothing(self, remote, tmp_path, monkeypatch):
        def broken(self, name, local, **options):
            Path(local).write_bytes(b"CC")
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(type(remote), "get_file", broken)
        with pytest.raises(DatasetError, match="No space left"):
            _plan(_own(Path("x")).model_copy(update={"path": "memory://molecules/b.smi"}), tmp_path)
        assert not [each for each in (tmp_path / "cache").rglob("*") if each.is_file()]

    def test_what_changes_there_is_copied_again(self, remote, tmp_path):
        spec = _own(Path("x")).model_copy(update={"path": "memory://molecules"})
        assert _in_pieces(_plan(spec, tmp_path), 1000).report.rows_read == 401
        remote.pipe_file("/molecules/b.smi", b"CCO\nCC\n" * 3)
        assert _in_pieces(_plan(spec, tmp_path), 1000).report.rows_read == 206
        remote.rm_file("/molecules/a.csv")
        assert _in_pieces(_plan(spec, tmp_path), 1000).report.rows_read == 6

    @pytest.mark.parametrize(
        ("url", "says"),
        [
            ("memory://molecules/none.smi", "memory://molecules/none.smi does not exist"),
            ("nosuch://a/b.smi", "cannot be read: .*fsspec"),
            ("memory://me:secret@a/b.smi", "carries a password"),
        ],
    )
    def test_what_is_refused(self, remote, tmp_path, url, says):
        with pytest.raises(DatasetError, match=says) as refused:
            _plan(_own(Path("x")).model_copy(update={"path": url}), tmp_path)
        assert "secret" not in str(refused.value)
