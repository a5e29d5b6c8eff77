"""The wheel is whole: what the packages' folders hold is in it, and it runs without the checkout."""

import json
import shutil
import subprocess
import sys
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import pairflow

pytest.importorskip(
    "setuptools", "77", reason="no setuptools 77, by which pyproject.toml builds: make .venv/.installed-dev"
)

_ROOT = Path(__file__).resolve().parents[1]
_PROJECT = tomllib.loads((_ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
_PACKAGES = ("flows", "pairflow", "storage")
_BUILD = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
_ASK = """
import json, pathlib, sys, yaml
import flows.pages, pairflow
from flows.service import programs
print(json.dumps({
    "from": pairflow.__file__,
    "version": pairflow.__version__,
    "deployments": [each["entrypoint"] for each in yaml.safe_load(programs.DEPLOYMENTS.read_text())["deployments"]],
}))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Built of a copy: setuptools builds within the tree, and takes along what an earlier build left there."""
    tree, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("dist")
    for package in _PACKAGES:
        shutil.copytree(_ROOT / package, tree / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(_ROOT / name, tree)
    done = subprocess.run([sys.executable, "-c", _BUILD, str(out)], cwd=tree, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (path,) = out.glob("*.whl")
    return zipfile.ZipFile(path)


def test_every_file_of_the_packages_is_in_it(wheel: zipfile.ZipFile) -> None:
    there = {
        path.relative_to(_ROOT).as_posix()
        for package in _PACKAGES
        for path in (_ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert len(there) > 250
    assert {name for name in wheel.namelist() if ".dist-info/" not in name} == there


def test_what_it_says_of_itself(wheel: zipfile.ZipFile) -> None:
    (name,) = [each for each in wheel.namelist() if each.endswith(".dist-info/METADATA")]
    said = Parser().parsestr(wheel.read(name).decode())
    assert (said["Name"], said["Version"], said["License-Expression"]) == (
        "pairflow",
        pairflow.__version__,
        "Apache-2.0",
    )
    assert name.replace("METADATA", "licenses/LICENSE") in wheel.namelist()
    plain = [Requirement(each) for each in said.get_all("Requires-Dist") or [] if "extra ==" not in each]
    assert {str(each) for each in plain} == {str(Requirement(each)) for each in _PROJECT["dependencies"]}
    assert set(said.get_all("Provides-Extra") or []) == set(_PROJECT["optional-dependencies"])
    assert b"pairflow = flows.command.app:main" in wheel.read(name.replace("METADATA", "entry_points.txt"))


def test_it_runs_in_an_empty_folder_and_brings_its_deployments(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    installed, empty = tmp_path / "site", tmp_path / "empty"
    wheel.extractall(installed)
    empty.mkdir()
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(empty), "PYTHONPATH": str(installed)}
    asked = subprocess.run(
        [sys.executable, "-c", _ASK], cwd=empty, env=environment, capture_output=True, text=True, timeout=120
    )
    assert asked.returncode == 0, asked.stderr
    answer = json.loads(asked.stdout)
    assert Path(answer["from"]).is_relative_to(installed)
    assert answer["version"] == pairflow.__version__
    names = ("prepare", "pair", "train", "distill", "evaluate", "pipeline", "retrain", "study")
    assert answer["deployments"] == [f"flows.{name}.{name}" for name in names]


def test_deployments_stand_where_prefect_deploy_looks_too() -> None:
    assert (_ROOT / "deploy" / "prefect.yaml").resolve() == _ROOT / "flows" / "service" / "deployments.yaml"
