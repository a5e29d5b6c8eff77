"""Who may import whom (docs/architecture.md), read off the syntax trees, imports within functions included."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import flows.lineage.tags

_ROOT = Path(__file__).resolve().parents[1]
_SERVICE = {"prefect", "ray", "mlflow"}
_FLOWS = ("pair", "train", "distill", "evaluate", "pipeline", "study", "retrain")

_STORED_TAGS = """
mlflow.data.context mlflow.experimentKind mlflow.modelVersions mlflow.note.content mlflow.parentRunId
mlflow.runName mlflow.source.git.commit mlflow.source.name mlflow.source.type pairflow.base_checkpoint
pairflow.base_model_id pairflow.base_sha256 pairflow.begun_by pairflow.candidate_model pairflow.checkpoint
pairflow.checkpoint_sha256 pairflow.command pairflow.comparison pairflow.content_sha256 pairflow.dataset
pairflow.dataset_digest pairflow.decision pairflow.digest pairflow.evaluation_run pairflow.extends
pairflow.extends_dataset_digest pairflow.extends_fingerprint pairflow.extends_url pairflow.fingerprint
pairflow.git_dirty pairflow.judged pairflow.machine. pairflow.machine.used pairflow.method pairflow.model
pairflow.model_id pairflow.outcome pairflow.pairing_run pairflow.pairs_fingerprint pairflow.pairs_url
pairflow.prefect_run_id pairflow.prefect_run_url pairflow.ray_job_url pairflow.ray_submission_id pairflow.recipe
pairflow.registered_model pairflow.report pairflow.rollback pairflow.samples pairflow.source pairflow.spec
pairflow.stage pairflow.table pairflow.training_fingerprint pairflow.training_rows pairflow.training_run
pairflow.training_seed pairflow.version
"""


def _modules(folder: str) -> list[Path]:
    return sorted((_ROOT / folder).rglob("*.py"))


def _imports(path: Path) -> Iterator[tuple[str, bool]]:
    """(dotted name, whether it is imported when the module is) of each import; relative ones made absolute."""
    package = path.relative_to(_ROOT).with_suffix("").parts[:-1]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    within = {
        id(node)
        for outer in ast.walk(tree)
        if isinstance(outer, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for node in ast.walk(outer)
    }
    within |= {
        id(node)
        for outer in ast.walk(tree)
        if isinstance(outer, ast.If) and "TYPE_CHECKING" in ast.unparse(outer.test)
        for body in outer.body
        for node in ast.walk(body)
    }
    for node in ast.walk(tree):
        at_top = id(node) not in within
        if isinstance(node, ast.Import):
            yield from ((alias.name, at_top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, (base, node.module)))
            yield module, at_top
            yield from ((f"{module}.{alias.name}", at_top) for alias in node.names)


def _is_within(name: str, module: str) -> bool:
    return name == module or name.startswith(f"{module}.")


def _violations(folder: str, forbidden: set[str], *, only_at_top: bool = False) -> list[str]:
    return [
        f"{path.relative_to(_ROOT)} imports {name}"
        for path in _modules(folder)
        for name, at_top in _imports(path)
        if (at_top or not only_at_top) and any(_is_within(name, module) for module in forbidden)
    ]


def test_library_stands_alone() -> None:
    assert _violations("pairflow", {"storage", "flows", "pyarrow.dataset", *_SERVICE}) == []
    # Readers of your own Zarr or Parquet file load them when there is one.
    assert _violations("pairflow", {"zarr", "pyarrow"}, only_at_top=True) == []


def test_storage_knows_specs_and_errors_only() -> None:
    assert _violations("storage", {"flows", "torch", *_SERVICE}) == []
    ours = {name for path in _modules("storage") for name, _ in _imports(path) if _is_within(name, "pairflow")}
    allowed = ("pairflow.spec", "pairflow.errors")
    assert [name for name in sorted(ours) if not any(_is_within(name, module) for module in allowed)] == []


def test_one_importer_of_mlflow() -> None:
    found = {path for path in _modules("flows") for name, _ in _imports(path) if _is_within(name, "mlflow")}
    assert {path.relative_to(_ROOT).parts[:2] for path in found} == {("flows", "lineage")}


def test_no_client_of_mlflow_leaves_lineage() -> None:
    """Outside of it `.client` is that of Ray's job, cluster or connection, and no type of MLflow's is named."""
    found = {
        (path.relative_to(_ROOT / "flows").parts[0], ast.unparse(node.value))
        for path in _modules("flows")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr == "client"
    }
    ray = {("cluster", "self"), ("cluster", "cluster"), ("cluster", "job"), ("stages", "cluster"), ("stages", "job")}
    outside = {each for each in found if each[0] != "lineage"}
    assert {each for each in outside if "prefect" not in each[1]} <= ray | {("service", "cluster")}


def test_tags_are_named_in_one_file() -> None:
    """No text in the code but a docstring holds the name of a tag, and all names are those that are stored already."""
    tags = {name: value for name, value in vars(flows.lineage.tags).items() if name.isupper() and name != "PREFIX"}
    assert len(set(tags.values())) == len(tags)
    assert sorted(tags.values()) == _STORED_TAGS.split()
    named = re.compile(rf"(?<![\w.])({'|'.join(map(re.escape, tags.values()))})(?![\w.])|`(pairflow|mlflow)\.")
    found = []
    for path in [each for each in _modules("flows") if each.name != "tags.py"]:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        statements = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            is_text = isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in statements
            if is_text and named.search(node.value):
                found.append(f"{path.relative_to(_ROOT)}:{node.lineno}: {node.value}")
    assert found == []


def test_jobs_know_nothing_of_prefect() -> None:
    assert _violations("flows/jobs", {"prefect"}) == []
    flow_files = {f"flows.{name}" for name in (*_FLOWS, "comparison", "stages", "pages.artifacts")}
    assert _violations("flows/jobs", {*flow_files, "flows.command", "flows.cluster.submission"}) == []


def test_flow_files_are_light() -> None:
    heavy = {"torch", "rdkit", "sklearn", "matplotlib", "numba"}
    found = [
        each for each in _violations("flows", heavy) if not each.startswith(("flows/jobs/", "flows/pages/figures/"))
    ]
    assert found == []


@pytest.mark.parametrize("module", [f"flows.{name}" for name in _FLOWS])
def test_flows_do_not_load_torch(module: str, tmp_path: Path) -> None:
    """Nor by way of others: a Prefect worker stays light."""
    code = f"import sys, {module}; print('torch' in sys.modules)"
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "PYTHONPATH": str(_ROOT), "DO_NOT_TRACK": "true"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
