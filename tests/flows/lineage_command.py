"""`pairflow lineage` in this process, and what it prints; the tests of it share this."""

import json
from typing import Any

from click.testing import Result
from typer.testing import CliRunner

from flows.command.app import app

Document = dict[str, Any]


def run_lineage(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["lineage", *arguments])


def document_of(reference: str, code: int | None = 0) -> Document:
    """What it says of a reference, and whether it found that whole; None as `code` where others may have harmed it."""
    done = run_lineage(reference, "--json")
    assert done.exit_code == code or (code is None and done.exit_code in (0, 1)), (done.output, done.exception)
    document: Document = json.loads(done.stdout)
    assert document["ref"] == reference
    assert document["ok"] == (done.exit_code == 0)
    return document


def paired(result: Document) -> tuple[Document, Document]:
    """Training and evaluation of the paired model."""
    return next(
        (trained, scored)
        for trained, scored in zip(result["trainings"], result["evaluation"]["models"], strict=True)
        if trained["method"] == "pairflow"
    )
