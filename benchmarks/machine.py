"""What benchmarks share: machine, versions and commit beside their figures, and an earlier commit as their baseline."""

import json
import os
import platform
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"


def describe_machine() -> dict[str, Any]:
    """Processor, cores, memory, versions and commit, as JSON values."""
    model = platform.processor()
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    try:
        commit = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            capture_output=True,
            text=True,
            check=False,
            cwd=Path(__file__).parent,
        ).stdout.strip()
    except FileNotFoundError:  # a bare machine has no git
        commit = ""
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("numpy", "numba", "torch")},
        "commit": commit or None,
    }


def write_results(name: str, results: list[dict[str, Any]]) -> Path:
    """Writes benchmarks/results/<name>.json with the machine's description and returns its path."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"machine": describe_machine(), "results": results}, indent=2) + "\n")
    return path


@contextmanager
def checked_out(commit: str, folder: Path) -> Iterator[Path]:
    """The code of a commit."""
    subprocess.run(["git", "-C", ROOT, "worktree", "add", "--detach", "-q", folder, commit], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["git", "-C", ROOT, "worktree", "remove", "--force", folder], check=True)
