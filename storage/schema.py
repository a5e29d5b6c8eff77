"""JSON schemas of header, record and manifest; `python -m storage.schema docs/schema` writes them anew."""

import json
import sys
from pathlib import Path
from typing import Any

from storage.documents import KINDS
from storage.manifest import FORMAT_VERSION


def document_schemas() -> dict[str, bytes]:
    """The schemas' files, by name: what pydantic checks field by field, and the three fields of every document."""
    return {
        f"{kind}.json": _schema(model.model_json_schema(mode="serialization"), kind) for model, kind in KINDS.items()
    }


def _schema(schema: dict[str, Any], kind: str) -> bytes:
    common = {
        "format_version": {"const": FORMAT_VERSION, "description": "A reader refuses any other."},
        "kind": {"const": kind, "description": "Which document this is."},
        "document_sha256": {
            "type": "string",
            "pattern": "^[0-9a-f]{64}$",
            "description": "SHA-256 of this file's bytes, with these 64 digits replaced by zeros.",
        },
    }
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": f"PairFlow {kind}, format version {FORMAT_VERSION}",
        "properties": common | schema["properties"],
        "required": sorted(common | schema["properties"]),  # also what has a default: a document states it all
    }
    return (json.dumps(schema, indent=2, sort_keys=True) + "\n").encode()


if __name__ == "__main__":
    for name, data in document_schemas().items():
        (Path(sys.argv[1]) / name).write_bytes(data)
