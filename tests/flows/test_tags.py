"""What MLflow keeps for us: names that are stored and stay, and a client that one room alone has."""

import ast
import re
from pathlib import Path

import flows.lineage.tags

_ROOT = Path(__file__).resolve().parents[2]
_STORED_TAGS = """
mlflow.data.context mlflow.experimentKind mlflow.loggedImages mlflow.modelVersions mlflow.note.content
mlflow.parentRunId mlflow.runName mlflow.sharedViewState. mlflow.source.git.commit mlflow.source.name
mlflow.source.type pairflow.base_checkpoint pairflow.base_model_id pairflow.base_sha256 pairflow.begun_by
pairflow.candidate_model pairflow.checkpoint pairflow.checkpoint_sha256 pairflow.command pairflow.comparison
pairflow.content_sha256 pairflow.dataset pairflow.dataset_digest pairflow.decision pairflow.digest
pairflow.evaluation_run pairflow.extends pairflow.extends_dataset_digest pairflow.extends_fingerprint
pairflow.extends_url pairflow.fingerprint pairflow.git_dirty pairflow.headline pairflow.judged pairflow.machine.
pairflow.machine.used pairflow.method pairflow.model pairflow.model_id pairflow.outcome pairflow.pairing_run
pairflow.pairs_fingerprint pairflow.pairs_url pairflow.prefect_run_id pairflow.prefect_run_url pairflow.ray_job_url
pairflow.ray_submission_id pairflow.recipe pairflow.registered_as pairflow.registered_model pairflow.report
pairflow.rollback pairflow.samples pairflow.score. pairflow.source pairflow.spec pairflow.stage pairflow.table
pairflow.training_fingerprint pairflow.training_rows pairflow.training_run pairflow.training_seed pairflow.version
"""


def _modules(folder: str) -> list[Path]:
    return sorted((_ROOT / folder).rglob("*.py"))


def test_no_client_of_mlflow_leaves_lineage() -> None:
    """Outside of it `.client` is that of Ray's job, cluster or connection, and no type of MLflow's is named."""
    found = {
        (path.relative_to(_ROOT / "flows").parts[0], ast.unparse(node.value))
        for path in _modules("flows")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr == "client"
    }
    ray = {("cluster", each) for each in ("self", "cluster", "job", "self._job")} | {
        ("stages", each) for each in ("cluster", "job")
    }
    outside = {each for each in found if each[0] != "lineage"}
    assert {each for each in outside if "prefect" not in each[1]} <= ray | {("service", "cluster")}


def test_tags_are_named_in_one_file() -> None:
    """No text in the code but a docstring holds the name of a tag, and all names are those that are stored already."""
    tags = {name: value for name, value in vars(flows.lineage.tags).items() if name.isupper() and "PREFIX" not in name}
    assert len(set(tags.values())) == len(tags)
    assert sorted(tags.values()) == _STORED_TAGS.split()
    # A module that is imported, in what people are told to type, is no tag.
    any_tag = "|".join(map(re.escape, tags.values()))
    named = re.compile(rf"(?<![\w.])(?<!from )({any_tag})(?![\w.])|`(pairflow|mlflow)\.")
    found = []
    for path in [each for each in _modules("flows") if each.name != "tags.py"]:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        statements = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            is_text = isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in statements
            if is_text and named.search(node.value):
                found.append(f"{path.relative_to(_ROOT)}:{node.lineno}: {node.value}")
    assert found == []
