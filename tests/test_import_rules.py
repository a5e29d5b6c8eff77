"""Who may import whom (docs/architecture.md), read off the syntax trees, imports within functions included."""

import ast
import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]
_SERVICE = {"prefect", "ray", "mlflow"}
_FLOWS = ("prepare", "pair", "train", "distill", "evaluate", "pipeline", "study", "retrain")


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
    server = _ROOT / "flows" / "service" / "mlflow.py"  # a program of its own, which nothing imports
    assert {path.relative_to(_ROOT).parts[:2] for path in found - {server}} == {("flows", "lineage")}


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


_LOADED = """
import importlib, json, os, sys
sys.path[:0] = sys.argv[2:]
import prefect  # once for all: each flow is then loaded by a process that is forked
for name in json.loads(sys.argv[1]):
    if os.fork() == 0:
        flow = getattr(importlib.import_module(f"flows.{name}"), name)
        print(json.dumps([name, flow.name, "torch" in sys.modules]), flush=True)
        os._exit(0)
    os.wait()
"""


def test_flows_load_no_torch_and_are_found_by_their_hooks(tmp_path: Path) -> None:
    """Torch neither by way of others: a Prefect worker stays light.

    Where a pool does not say how runs are started, Prefect runs their hooks by a file beside a `storage.py`, which then
    stands for our package: flows/stages/hooks.py.
    """
    runner = importlib.util.find_spec("prefect.runner")
    assert runner is not None
    assert runner.origin is not None
    beside = Path(runner.origin).parent
    assert (beside / "storage.py").is_file()  # else the reason is gone
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "PYTHONPATH": str(_ROOT), "DO_NOT_TRACK": "true"}
    words = [sys.executable, "-c", _LOADED, json.dumps(_FLOWS), str(beside)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    assert [json.loads(line) for line in done.stdout.splitlines()] == [[name, name, False] for name in _FLOWS]


def test_jobs_without_tasks_do_not_load_ray() -> None:
    code = "import sys, flows.jobs.train, flows.jobs.distill, flows.jobs.evaluate; print('ray' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
