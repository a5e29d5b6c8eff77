"""Files of SMILES as people have them: encodings, line ends, quotes, columns; and what is said beforehand."""

import codecs
import gzip

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pairflow import datasets
from pairflow.datasets.files import files_at
from pairflow.datasets.smiles_files import ENDINGS, check_head, iterate_smiles
from pairflow.datasets.text_files import lines
from pairflow.errors import DatasetError
from pairflow.spec import DatasetSpec

NAMED = "CCO caféine\nCC\tβ-blocker\n\nC#N\n"


@pytest.mark.parametrize(
    ("encoding", "mark"),
    [
        ("utf-8", b""),
        ("utf-8", codecs.BOM_UTF8),
        ("utf-16-le", codecs.BOM_UTF16_LE),
        ("utf-16-be", codecs.BOM_UTF16_BE),
        ("utf-32-le", codecs.BOM_UTF32_LE),
        ("iso-8859-7", b""),
        ("mac_greek", b""),
        ("cp932", b""),
    ],
)
def test_encodings(tmp_path, encoding, mark):
    text = NAMED if encoding.startswith("utf") else NAMED.replace("é", "e").replace("β", "β")
    (tmp_path / "a.smi").write_bytes(mark + text.encode(encoding))
    (tmp_path / "a.smi.gz").write_bytes(gzip.compress(mark + text.encode(encoding)))
    for name in ("a.smi", "a.smi.gz"):
        assert list(iterate_smiles(tmp_path / name)) == ["CCO", "CC", "", "C#N"]
        check_head(tmp_path / name, None)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (NAMED.encode("utf-16-le"), "looks like UTF-16 without a byte order mark; save it as UTF-8"),
        (b"CCO\0\0\nCC\n" * 9, "holds zero bytes"),
        (b"PK\x03\x04" + b"\0" * 90, "a ZIP archive, as of Excel"),
        (gzip.compress(b"CCO\n", mtime=0), r"compressed by gzip; give it a name that ends in \.gz"),
        (b"PAR1" + b"\0" * 90, "a Parquet file"),
        (codecs.BOM_UTF16_LE + b"\x00\xd8\x00\xd8" * 9, "byte order mark of utf-16, but is not text in it"),
    ],
)
def test_what_is_no_text_is_called_by_its_name(tmp_path, data, says):
    (tmp_path / "a.smi").write_bytes(data)
    for look in (lambda path: list(iterate_smiles(path)), lambda path: check_head(path, None)):
        with pytest.raises(DatasetError, match=says):
            look(tmp_path / "a.smi")


@given(st.lists(st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]))), st.data())
def test_lines_are_cut_at_line_ends_only(texts, data):
    """Python's own splitlines also cuts at form feeds, U+0085, U+2028 and five others."""
    ends = [data.draw(st.sampled_from(["\n", "\r\n", "\r"])) for _ in texts]
    # A lone \r before an empty line would be half of \r\n.
    ends = ["\n" if end == "\r" else end for end in ends] if "" in texts else ends
    assert list(lines("".join(text + end for text, end in zip(texts, ends, strict=True)))) == texts


@pytest.mark.parametrize("mark", ["\u2028", "\x0b", "\x0c", "\x1c", "\x1e", "\x85"])
def test_a_strange_character_within_a_name_makes_no_row(tmp_path, mark):
    (tmp_path / "a.smi").write_text(f"CCO na{mark}me\nCC\n", encoding="utf-8")
    (tmp_path / "a.csv").write_text(f"name,smiles\nna{mark}me,CCO\n,CC\n", encoding="utf-8")
    for name in ("a.smi", "a.csv"):
        assert list(iterate_smiles(tmp_path / name)) == ["CCO", "CC"]


TABLES = {
    "quoted": ("a.csv", 'name,smiles\n"1,2-ethanediol",OCCO\n"a ""b""\nc",CC\n', None),
    "semicolons": ("a.csv", "smiles;mass\nOCCO;62,07\nCC;30,07\n", None),
    "tabs in .csv": ("a.csv", "name\tsmiles\nx\tOCCO\ny\tCC\n", None),
    "tsv": ("a.tsv", "name\tsmiles\n1,2\tOCCO\n;\tCC\n", None),
    "capitals": ("A.CSV", "Name,SMILES\nx,OCCO\ny,CC\n", None),
    "blanks around": ("a.csv", "name, smiles\nx, OCCO\ny, CC\n", None),
    "CXSMILES": ("a.csv", 'smiles,y\n"OCCO |$R1;;;$,lp:0:2|",1\nCC |c:1|,2\n', None),
    "several": ("a.csv", "smiles,canonical\nC(C)O,OCCO\nC-C,CC\n", "canonical"),
    "a header in .smi": ("a.smi", "id SMILES canonical\n1 C(C)O OCCO\n2 C-C CC\n", "canonical"),
    "a header in .txt": ("a.txt", "id\tmy structure\n1\tOCCO\n2\tCC\n", "my structure"),
    "short rows": ("a.csv", "smiles,name\nOCCO\n\nCC,x\n", None),
    "old Macintosh": ("a.csv", "smiles,name\rOCCO,x\rCC,y\r", None),
}


@pytest.mark.parametrize(("name", "text", "column"), TABLES.values(), ids=TABLES)
def test_tables(tmp_path, name, text, column):
    (tmp_path / name).write_bytes(text.encode())
    assert list(iterate_smiles(tmp_path / name, column=column)) == ["OCCO", "CC"]
    check_head(tmp_path / name, column)


@pytest.mark.parametrize(
    ("text", "column", "says"),
    [
        ("id,structure\n1,CC\n", None, r"columns \['id', 'structure'\], expected one named 'smiles'; .*--column"),
        ("id,smiles\n1,CC\n", "SMILES", r"expected one named 'SMILES'"),
        ("Smiles,SMILES\nCC,CO\n", None, "has 2 columns named 'smiles'"),
        ("smiles,smiles\nCC,CO\n", None, "has 2 columns named 'smiles'"),
        ("name,smiles\n1,2-ethanediol,OCCO\n", None, "row 1 has 3 fields, the header 2: put fields that contain ','"),
        ('smiles,name\nCC,"x\nCCO,y\n', None, "is not CSV: unexpected end of data"),
        ('smiles,name\n"CC"O,x\n', None, "line 2, is not CSV"),
        ("", None, r"columns \[\], expected one"),
    ],
)
def test_tables_that_would_give_other_rows(tmp_path, text, column, says):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(DatasetError, match=says):
        list(iterate_smiles(tmp_path / "a.csv", column=column))


def test_a_long_field_of_another_column(tmp_path, monkeypatch):
    rows = f"smiles,note\nCCO,{'x' * 300_000}\nCC,y\n"
    (tmp_path / "a.csv").write_text(rows)
    assert list(iterate_smiles(tmp_path / "a.csv")) == ["CCO", "CC"]
    monkeypatch.setattr("pairflow.datasets.text_files._LONGEST_FIELD", 1000)
    with pytest.raises(DatasetError, match=r"line 2, is not CSV: field larger than field limit.*close the quote"):
        list(iterate_smiles(tmp_path / "a.csv"))


@pytest.mark.parametrize("name", ["a.sdf", "a.sdf.gz"])
def test_records_have_no_columns(tmp_path, name):
    for read in (lambda path: list(iterate_smiles(path, column="x")), lambda path: check_head(path, "x")):
        with pytest.raises(DatasetError, match=r"a\.sdf.* no column 'x'; leave the column out"):
            read(tmp_path / name)


def test_the_same_rows_packed_and_unpacked_are_not_read_twice(tmp_path):
    for name in ("a.smi", "A.smi", "b.csv", "a.smi.gz"):
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(DatasetError, match=r"has a\.smi and a\.smi\.gz, which may be the same rows twice; move one"):
        files_at(str(tmp_path), ENDINGS, "file of SMILES")
    (tmp_path / "a.smi.gz").rename(tmp_path / "_a.smi.gz")
    assert [each.name for each in files_at(str(tmp_path), ENDINGS, "")] == ["A.smi", "a.smi", "b.csv"]
    (tmp_path / "b.tsv").write_bytes(b"x")
    with pytest.raises(DatasetError, match=r"has b\.csv and b\.tsv"):
        files_at(f"{tmp_path}/b*", ENDINGS, "file of SMILES")


class TestBeforehand:
    """`datasets.check` says what `load` would, and reads no molecule."""

    @pytest.fixture(autouse=True)
    def _no_screening(self, monkeypatch, tmp_path):
        monkeypatch.setattr("pairflow.datasets.screening.screen_rows", lambda *_: pytest.fail("molecules were read"))
        monkeypatch.delenv("PAIRFLOW_DATA_DIR", raising=False)
        monkeypatch.chdir(tmp_path)

    @pytest.mark.parametrize(
        ("fields", "says"),
        [
            ({"name": "smiles", "path": "no.smi"}, r"no\.smi does not exist"),
            ({"name": "smiles", "path": "rows.npy"}, "is no file of SMILES"),
            ({"name": "smiles", "path": "empty"}, "has no finished file"),
            ({"name": "smiles", "path": "a.csv", "column": "x"}, "expected one named 'x'"),
            ({"name": "smiles", "path": "a.smi", "max_length": 2}, "max_length must be at least 3"),
            ({"name": "smiles", "path": "packed.smi"}, "compressed by gzip"),
            ({"name": "tokens", "path": "no.npy", "vocab_size": 3}, r"no\.npy does not exist"),
            ({"name": "tokens", "path": "rows.npy", "vocab_size": 3}, "token 19 at row 9, column 1 does not fit K = 3"),
            ({"name": "tokens", "path": "rows.npy", "vocab_path": "no.json"}, r"no\.json does not exist"),
            ({"name": "digits", "max_length": 9}, "max_length is for molecules"),
        ],
    )
    def test_in_the_same_words(self, tmp_path, fields, says):
        np.save("rows.npy", np.arange(20).reshape(10, 2))
        (tmp_path / "empty").mkdir()
        (tmp_path / "a.csv").write_text("smiles\nCC\n")
        (tmp_path / "a.smi").write_text("CC\n")
        (tmp_path / "packed.smi").write_bytes(gzip.compress(b"CC\n", mtime=0))
        spec = DatasetSpec(**fields)
        with pytest.raises(DatasetError, match=says) as early:
            datasets.check(spec)
        with pytest.raises(DatasetError) as late:
            datasets.load(spec, cache_dir=tmp_path, progress=False)
        assert str(early.value) == str(late.value)

    def test_a_data_folder_that_is_not_there(self, tmp_path):
        with pytest.raises(DatasetError, match=r"data folder .* does not exist"):
            datasets.check(DatasetSpec(name="qm9"), data_dir=tmp_path / "no")

    def test_what_is_sound_is_left_for_later(self, tmp_path):
        (tmp_path / "a.csv").write_bytes(b'"smi\nles",smiles\n' + b"x,CC\n" * 50_000)
        datasets.check(DatasetSpec(name="smiles", path="a.csv"))
        for name in ("digits", "nci", "qm9"):
            datasets.check(DatasetSpec(name=name))
