"""Rows prepared in pieces are those of reading the source in one go, however it is cut; and the files with them."""

import bz2
import gzip
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from rdkit import Chem

from pairflow import datasets
from pairflow.datasets import pieces
from pairflow.datasets.smiles_files import iterate_smiles
from pairflow.errors import DatasetError

from .smiles_rows import ROWS, folder, in_pieces, own, plan_of

__all__ = ["folder"]


@pytest.mark.parametrize("piece_bytes", [1, 50, 997, 1 << 20])
def test_any_cut_gives_the_same(folder, tmp_path, piece_bytes):
    """The oracle counts rows by hand and knows where each stands; `load` has never seen a piece of part of a file."""
    spec = own(folder, max_rows=150, split_seed=3)
    whole = datasets.load(spec, cache_dir=tmp_path / "cache", progress=False)
    found = in_pieces(plan_of(spec, tmp_path), piece_bytes)
    assert found.digest == whole.digest
    assert found.report == whole.report
    assert found.vocab == whole.vocab
    for part in ("train", "test"):
        np.testing.assert_array_equal(found.splits[part], whole.splits[part])
    assert found.report.rows_read == 401
    assert found.report.dropped["empty"] == 2 * ROWS.count("")
    assert found.report.dropped["not read by RDKit"] == 2 * (ROWS.count("nonsense") + ROWS.count("C("))
    all_rows = plan_of(spec, tmp_path).of_all_rows
    assert all_rows is not None
    chosen = plan_of(spec, tmp_path).choose(in_pieces(all_rows, piece_bytes))
    assert (chosen.digest, chosen.part("train").digest) == (whole.digest, whole.part("train").digest)
    assert chosen.report == whole.report
    bad = [number for number, smiles in enumerate(ROWS) if smiles in ("nonsense", "C(")]
    expected = tuple(f"a.csv row {number}: {ROWS[number]!r}" for number in bad[:3])
    assert found.report.examples["not read by RDKit"] == expected


def test_rows_and_vocabulary_are_those_that_the_text_says(folder, tmp_path):
    found = in_pieces(plan_of(own(folder), tmp_path), 50)
    kept = [smiles for smiles in ROWS if smiles in ("CCO", "c1cc[nH]c1", "[13CH4]", "ClCBr", "N->[Pt]<-N", "F/C=C\\F")]
    assert found.decode(found.tokens) == [*kept, *kept, "O=C=O"]
    tokens = ["->", "/", "1", "<-", "=", "Br", "C", "Cl", "F", "N", "O", "[13CH4]", "[Pt]", "[nH]", "\\", "c"]
    assert found.vocab is not None
    assert found.vocab.tokens == ("<bos>", "<eos>", "<pad>", *tokens)


def test_the_fingerprint_is_of_content_and_spec_and_not_of_the_place(folder, tmp_path):
    before = plan_of(own(folder), tmp_path).fingerprint()
    moved = folder.rename(tmp_path / "elsewhere")
    assert plan_of(own(moved), tmp_path).fingerprint() == before
    assert plan_of(own(moved, max_length=20), tmp_path).fingerprint() != before
    (moved / "b.smi").write_text("CCO\n")
    assert plan_of(own(moved), tmp_path).fingerprint() != before


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
    found = in_pieces(plan_of(own(path), tmp_path), 100)
    assert found.decode(found.tokens) == [Chem.CanonSmiles(each) for each in smiles]
    assert found.report.examples == {"not read by RDKit": ("a.sdf row 3: 'a title'",)}
    assert found.digest == datasets.load(own(path), cache_dir=tmp_path / "cache", progress=False).digest
    path.write_text(path.read_text()[:-6])
    with pytest.raises(DatasetError, match=r"its last record does not end with \$\$\$\$"):
        in_pieces(plan_of(own(path), tmp_path), 100)


def test_a_pattern_and_a_folder_of_mixed_kinds(folder, tmp_path):
    (folder / "_passed_over.smi").write_text("C\n")
    found = in_pieces(plan_of(own(folder / "*.smi"), tmp_path), 1000)
    assert found.report.rows_read == 201
    with pytest.raises(DatasetError, match=r"the pattern .*\*\.smiles has no finished file"):
        plan_of(own(folder / "*.smiles"), tmp_path)
    pq.write_table(pa.table({"smiles": ["C"]}), folder / "c.parquet")
    with pytest.raises(
        DatasetError, match=r"2 kinds \(text, such as b\.smi; Parquet or Arrow, such as c\.parquet\).*own"
    ):
        plan_of(own(folder), tmp_path)


@pytest.mark.parametrize("grows", [True, False])
def test_a_file_that_changes_while_it_is_read(folder, tmp_path, grows):
    path = folder / "b.smi"
    plan = plan_of(own(path), tmp_path)
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
        in_pieces(plan_of(own(folder), tmp_path), 1000)
