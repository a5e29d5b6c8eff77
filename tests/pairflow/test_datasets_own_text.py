"""Text of one's own, cut into windows; and lists of tokens in Arrow files."""

import gzip

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pytest

from pairflow import datasets
from pairflow.errors import DatasetError, SpecError
from pairflow.spec import DatasetSpec, fingerprint, parse

TEXT = "Zeilen enden\nverschieden\r\n\u00fcber \u20ac\u2028und \U0001f600 " * 9


def load(path, **fields):
    return datasets.load(DatasetSpec(name="text", path=str(path), holdout=0.2, **fields), progress=False)


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_windows_join_to_the_text(tmp_path, name, mark):
    data = mark + TEXT.encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    of_bytes = load(tmp_path / name, window=7)
    kept = len(TEXT.encode()) // 7 * 7
    assert of_bytes.tokens.tobytes() == TEXT.encode()[:kept]
    assert (of_bytes.vocab_size, of_bytes.length, of_bytes.vocab) == (256, 7, None)
    of_characters = load(tmp_path / name, window=5, unit="characters")
    assert of_characters.vocab is not None
    assert of_characters.vocab.tokens == tuple(sorted(set(TEXT)))
    joined = "".join(of_characters.vocab.tokens[token] for token in of_characters.tokens.ravel())
    assert joined == TEXT[: len(TEXT) // 5 * 5]
    left = len(TEXT) % 5
    assert of_characters.report.dropped == {"shorter than 5 characters": 1}
    assert of_characters.report.examples["shorter than 5 characters"] == (f"{name}: {left} characters at its end",)


def test_each_file_of_a_folder_is_cut_by_itself(tmp_path):
    for name, text in (("b.txt", "cdefg"), ("a.txt", "ababab"), ("_c.txt", "xx")):
        (tmp_path / name).write_text(text)
    found = load(tmp_path, window=2)
    assert found.tokens.tobytes() == b"abababcdef"
    assert (found.report.rows_read, found.report.rows_kept) == (6, 5)
    assert load(tmp_path / "[ab].txt", window=2).digest == found.digest


@pytest.mark.parametrize(
    ("data", "fields", "says"),
    [
        (b"abc", {}, "empty: 0 of 1 rows kept .* 1 shorter than 128 bytes; give more text"),
        (b"\xff" * 99, {"window": 2}, "no text in UTF-8: invalid start byte at byte 0"),
        (b"a" * 99, {"window": 2, "unit": "characters"}, "holds one character alone, 'a'"),
        (gzip.compress(b"abc" * 99, mtime=0), {"window": 2}, r"compressed by gzip; give it a name that ends in \.gz"),
    ],
)
def test_what_is_refused(tmp_path, data, fields, says):
    (tmp_path / "a.txt").write_bytes(data)
    with pytest.raises(DatasetError, match=says):
        load(tmp_path / "a.txt", **fields)


def test_fields_of_text_are_of_text_alone():
    for fields, says in (
        ({"name": "text"}, r"needs a path to a \.txt"),
        ({"name": "digits", "window": 3}, "window can only be given for dataset 'text', got 'digits'"),
        ({"name": "smiles", "path": "a.smi", "unit": "bytes"}, "unit can only be given for dataset 'text'"),
        ({"name": "text", "path": "a.txt", "column": "x"}, "column can only be given for"),
    ):
        with pytest.raises(SpecError, match=says):
            parse(DatasetSpec, fields)


def test_specs_without_them_are_as_before():
    """Written down before the fields were there."""
    spec = DatasetSpec(name="qm9", max_rows=7)
    assert sorted(spec.model_dump(mode="json")) == sorted(
        ["name", "path", "vocab_size", "vocab_path", "max_length", "max_rows", "holdout", "split_seed"]
    )
    assert fingerprint(spec) == "f4ef8bd7ed707d7c777a5c6162ecca19345839be1dc9a3b34aadd8e0f563c6e1"


@pytest.mark.parametrize("ending", [".arrow", ".feather"])
def test_lists_of_tokens_in_an_arrow_file(tmp_path, ending):
    rows = np.arange(60).reshape(20, 3) % 7
    table = pa.table({"tokens": rows.tolist(), "name": ["n"] * 20})
    path = tmp_path / f"a{ending}"
    if ending == ".feather":
        pyarrow.feather.write_feather(table, str(path))
    else:
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=6)
    spec = DatasetSpec(name="tokens", path=str(path), vocab_size=7, holdout=0.2)
    found = datasets.load(spec, progress=False)
    np.testing.assert_array_equal(found.tokens, rows)
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(DatasetError, match=f"a{ending} cannot be read"):
        datasets.load(spec, progress=False)
