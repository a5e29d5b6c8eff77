"""QM9 and ZINC-250k from hand-made files in the published layouts: which copy is taken, and what damage is found."""

import bz2
import gzip
import io
import tarfile

import pytest

from pairflow import datasets
from pairflow.errors import DatasetError
from pairflow.spec import DatasetSpec


@pytest.fixture
def load(tmp_path):
    """Loads from `tmp_path`, where every file that is needed lies."""

    def load(name):
        return datasets.load(
            DatasetSpec(name=name), data_dir=tmp_path, cache_dir=tmp_path / "downloads", progress=False
        )

    return load


def write_smi(folder, part, rows):
    (folder / f"zinc250k_{part}.smi.gz").write_bytes(gzip.compress("\n".join(rows).encode()))


def test_zinc_takes_the_most_complete_local_copy(tmp_path, load, caplog):
    write_smi(tmp_path, "valid", ["CCN"] * 30)
    write_smi(tmp_path, "test", ["CCCl"] * 10)
    part = load("zinc-250k")
    assert {name: len(rows) for name, rows in part.splits.items()} == {"train": 30, "test": 10}
    assert "only a part of ZINC-250k" in part.report.notes[0]
    assert "validation part serves as training part" in caplog.text
    assert set(part.decode(part.part("test").tokens)) == {"CCCl"}

    # As published: quoted, with a line break inside the quotes.
    csv = "smiles,logP,qed,SAS\n" + '"CCO\n",1.0,0.5,2.0\n' * 40
    (tmp_path / "250k_rndm_zinc_drugs_clean_3.csv").write_text(csv)
    whole = load("zinc-250k")
    assert (set(whole.decode(whole.tokens)), len(whole), whole.report.notes) == ({"CCO"}, 40, ())
    assert len(whole.splits["test"]) == 2

    write_smi(tmp_path, "train", ["CCBr"] * 50)
    split = load("zinc-250k")
    assert set(split.decode(split.part("train").tokens)) == {"CCBr"}
    assert set(split.decode(split.part("test").tokens)) == {"CCCl"}
    assert split.report.notes == ()


def test_damaged_smiles_files(tmp_path, load):
    whole = gzip.compress(b"smiles\n" + b"CC\n" * 500)
    for content, message in [
        (whole[:-9], "is damaged or cut short"),
        (b"", r"columns \[\], expected one"),
        (gzip.compress(b"smiles\n\xff\xfe\n"), "empty: 0 of 1 rows kept"),
        (gzip.compress(b"smile,y\nCC,1\n"), r"columns \['smile', 'y'\], expected one named 'smiles'"),
    ]:
        (tmp_path / "qm9.csv.gz").write_bytes(content)
        with pytest.raises(DatasetError, match=message) as caught:
            load("qm9")
        assert "qm9.csv.gz" in str(caught.value)


def xyz(num_atoms, gdb, relaxed):
    lines = [str(num_atoms), "gdb 1\t157.7", *["C\t0.0\t1.0\t0.0\t-0.5"] * num_atoms, "1341.307\t1341.3284"]
    return "\n".join([*lines, f"{gdb}\t{relaxed}\t", "InChI=1S/x\tInChI=1S/x", ""]).encode()


def write_qm9_archive(path, files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for number, data in enumerate(files):
            member = tarfile.TarInfo(f"dsgdb9nsd_{number:06}.xyz")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    path.write_bytes(bz2.compress(buffer.getvalue()))


def test_qm9_from_the_published_archive(tmp_path, load):
    path = tmp_path / "dsgdb9nsd.xyz.tar.bz2"
    write_qm9_archive(path, [xyz(5, "C", "C")] * 10 + [xyz(9, "OCC", "OCC")] * 10)
    loaded = load("qm9")
    assert loaded.decode(loaded.tokens) == ["C"] * 10 + ["CCO"] * 10
    assert "not row for row those of qm9.csv" in loaded.report.notes[0]
    write_qm9_archive(path, [xyz(5, "C", "C"), b"<html>blocked</html>"])
    with pytest.raises(DatasetError, match=r"dsgdb9nsd_000001\.xyz is not laid out"):
        load("qm9")
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(DatasetError, match="is damaged or cut short"):
        load("qm9")
