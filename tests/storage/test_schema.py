"""docs/schema says what the documents are: it is current, real documents fit it, and others do not."""

import copy
import json
from pathlib import Path

import jsonschema
import pytest

from storage.schema import document_schemas

from . import storage_formula as formula

FOLDER = Path(__file__).parents[2] / "docs" / "schema"
DOCUMENTS = {
    "_header.json": "pairs-header.json",
    "_records/00003.json": "pairs-record.json",
    "_manifest.json": "pairs-manifest.json",
}


def validator(name: str) -> jsonschema.Draft202012Validator:
    schema = json.loads((FOLDER / name).read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def test_the_files_are_current():
    """Renew them with `python -m storage.schema docs/schema`; a change may want another format version."""
    assert {path.name: path.read_bytes() for path in FOLDER.glob("*.json")} == document_schemas()


@pytest.mark.parametrize("vocab", [None, [f"<{i}>" for i in range(43)]])
def test_real_documents_fit(format, tmp_path, vocab):
    url = formula.write(str(tmp_path), formula.header(format, 7, vocab=vocab))
    for name, schema in DOCUMENTS.items():
        validator(schema).validate(json.loads((Path(url) / name).read_text()))


def test_a_document_is_of_one_kind_only(format, tmp_path):
    url = formula.write(str(tmp_path), formula.header(format, 7))
    for name, own in DOCUMENTS.items():
        document = json.loads((Path(url) / name).read_text())
        for schema in DOCUMENTS.values():
            assert validator(schema).is_valid(document) == (schema == own)


@pytest.mark.parametrize("document", sorted(DOCUMENTS))
def test_other_documents_do_not_fit(tmp_path, document):
    """Without one of its fields, with one more, with another version: neither the schema nor our reader takes it."""
    url = formula.write(str(tmp_path), formula.header("zarr", 7))
    sound = json.loads((Path(url) / document).read_text())
    check = validator(DOCUMENTS[document])
    for name in sound:
        without = copy.deepcopy(sound)
        del without[name]
        assert not check.is_valid(without), name
    for change in ({"unknown": 1}, {"format_version": 2}, {"fingerprint": "x"}, {"document_sha256": "0"}):
        assert not check.is_valid(sound | change), change


def test_names_that_lead_out_of_the_folder_do_not_fit(tmp_path):
    url = formula.write(str(tmp_path), formula.header("zarr", 7))
    record = json.loads((Path(url) / "_records" / "00003.json").read_text())
    check = validator("pairs-record.json")
    for name in ("../c.0", "/etc/passwd", "a/../../b", ".hidden", "a/.b", "", "a//b"):
        record["objects"][0]["name"] = name
        assert not check.is_valid(record), name
