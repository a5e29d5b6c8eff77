"""How header, records and manifest become JSON files that notice a flipped bit."""

import hashlib
import json
import re
from typing import Any, TypeVar

from pydantic import ValidationError

from pairflow.errors import ManifestVersionError, ShardCorruptError, SpecError
from pairflow.spec import Spec
from storage.dataset_manifest import DatasetHeader, DatasetManifest
from storage.filesystem import Folder
from storage.manifest import FORMAT_VERSION, Manifest, PairsHeader, ShardRecord

HEADER = "_header.json"
MANIFEST = "_manifest.json"

D = TypeVar("D", bound=Spec)
KINDS: dict[type[Spec], str] = {
    PairsHeader: "pairs-header",
    ShardRecord: "pairs-record",
    Manifest: "pairs-manifest",
    DatasetHeader: "dataset-header",
    DatasetManifest: "dataset-manifest",
}
_NO_HASH = "0" * 64


def record_name(header: PairsHeader, index: int) -> str:
    """Where a shard's record lies below the coupling's folder."""
    return f"_records/{header.part_name(index)}.json"


def render(document: Spec) -> bytes:
    """The document's file: JSON, sorted and indented, with a hash of itself.

    `document_sha256` is the SHA-256 of the file's bytes with the 64 digits of `document_sha256` replaced by zeros.
    Equal documents give equal bytes: there is no time of writing in them.
    """
    fields = document.model_dump(mode="json") | {
        "format_version": FORMAT_VERSION,
        "kind": KINDS[type(document)],
        "document_sha256": _NO_HASH,
    }
    text = json.dumps(fields, indent=2, sort_keys=True, ensure_ascii=True, allow_nan=False) + "\n"
    marker = '"document_sha256": "'
    digest = hashlib.sha256(text.encode()).hexdigest()
    return text.replace(marker + _NO_HASH, marker + digest).encode()


def parse_document(document_type: type[D], data: bytes, path: str) -> D:
    """Reads a document back.

    Raises:
        ManifestVersionError: another format version wrote it.
        ShardCorruptError: it is not what was written, or not this kind of document.
    """
    remedy = REMEDY_OF_DATASETS if document_type in (DatasetHeader, DatasetManifest) else _REMEDY
    fields = _fields(data, path, remedy)
    fields.pop("document_sha256", None)
    if not states_its_hash(data):
        raise ShardCorruptError(f"{path} is damaged: its bytes do not have the hash that it states; {remedy}")
    version = fields.pop("format_version", None)
    if type(version) is int and version != FORMAT_VERSION:
        raise ManifestVersionError(
            f"{path} has format version {version}; this release reads version {FORMAT_VERSION}. Read it with the "
            "release that wrote it, or {'make the pairs again with `pairflow pair`' if remedy is _REMEDY else remedy}"
        )
    kind = fields.pop("kind", None)
    if kind != KINDS[document_type] or version is None:
        raise ShardCorruptError(f"{path} should be a {KINDS[document_type]}, but is a {kind}; {remedy}")
    try:
        return document_type.model_validate(fields)
    except (ValidationError, SpecError) as error:
        raise ShardCorruptError(f"{path} is not a valid {kind}: {error}; {remedy}") from None


_REMEDY = "run `pairflow verify --repair` on these pairs, or move their folder away and run `pairflow pair` again"
REMEDY_OF_DATASETS = "`pairflow prepare` of the same data makes it again"
_STATED = re.compile(rb'\n  "document_sha256": "([0-9a-f]{64})"')


def states_its_hash(data: bytes) -> bool:
    """Whether the bytes of a document have the hash that they state: the same for all format versions."""
    stated = _STATED.search(data)
    if stated is None:
        return False
    digest = hashlib.sha256(data[: stated.start(1)])
    digest.update(_NO_HASH.encode())
    digest.update(memoryview(data)[stated.end(1) :])
    return digest.hexdigest().encode() == stated[1]


def _fields(data: bytes, path: str, remedy: str) -> dict[str, Any]:
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError) as error:  # also text that is not UTF-8
        raise ShardCorruptError(f"{path} is damaged: it is not JSON ({error}); {remedy}") from None
    if not isinstance(fields, dict):
        raise ShardCorruptError(f"{path} is damaged: it is not a JSON object; {remedy}")
    return fields


def read_document(document_type: type[D], folder: Folder, name: str) -> D | None:
    """The document in a file, or None if there is no such file; raises as `parse_document` does."""
    data = folder.read(name)
    return None if data is None else parse_document(document_type, data, folder.path(name))
