"""What a repository is expected to have says what is so: versions, commands, pins, folders."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import pairflow

_ROOT = Path(__file__).resolve().parents[1]
_MAKEFILE = (_ROOT / "Makefile").read_text(encoding="utf-8")
_PROJECT = tomllib.loads((_ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def _yaml(name: str) -> Any:
    return yaml.safe_load((_ROOT / name).read_text(encoding="utf-8"))


def _recipe(target: str) -> list[str]:
    """The commands of a target, without make's signs and the environment's folder."""
    (recipe,) = re.findall(rf"^{target}:.*\n((?:\t.*\n)+)", _MAKEFILE, flags=re.MULTILINE)
    return [line.strip().removeprefix("@").replace("$(BIN)/", "") for line in recipe.splitlines()]


def test_one_version_and_one_licence() -> None:
    cited = _yaml("CITATION.cff")
    assert (cited["version"], cited["license"]) == (pairflow.__version__, _PROJECT["license"])
    assert "Apache License\n                           Version 2.0" in (_ROOT / "LICENSE").read_text()
    released = re.findall(r"^## \[?([^\]\s]+)", (_ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert released[:2] == ["Unreleased", pairflow.__version__]
    assert cited["preferred-citation"]["identifiers"][0]["value"].removeprefix("arXiv:") in (
        (_ROOT / "docs/method.md").read_text()
    )


def test_deploy_names_images_by_the_version() -> None:
    named = {
        version
        for path in (_ROOT / "deploy").rglob("*")
        if path.is_file() and path.suffix != ".pyc"
        for version in re.findall(r"\b(\d+\.\d+\.\d+)-(?:cpu|cuda)\b", path.read_text(encoding="utf-8"))
    }
    assert named == {pairflow.__version__}


def test_hooks_before_a_commit_are_those_of_make_check() -> None:
    (repository,) = _yaml(".pre-commit-config.yaml")["repos"]
    hooks = [each["entry"].replace(".venv/bin/", "").replace(" --force-exclude", "") for each in repository["hooks"]]
    assert hooks == [command.removesuffix(" .") for command in _recipe("check")]


def test_ci_runs_targets_that_there_are_on_all_tests() -> None:
    jobs = _yaml(".github/workflows/ci.yml")["jobs"]
    runs = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    targets = {re.search(r"make ([\w-]+)", run)[1] for run in runs}  # type: ignore[index] # then it is no make
    assert {"check", "test", "test-containers", "test-hosts"} <= targets
    assert targets <= set(re.findall(r"^([\w-]+):", _MAKEFILE, flags=re.MULTILINE))
    assert "$(TESTS)" in _MAKEFILE
    named = [path for part in jobs["test"]["strategy"]["matrix"]["include"] for path in part["tests"].split()]
    covered = [path for name in named for path in _ROOT.glob(name)]
    there = [path for path in (_ROOT / "tests").iterdir() if path.is_dir() and any(path.rglob("test_*.py"))]
    alone = [line for target in ("test-containers", "test-hosts") for line in _recipe(target)]
    covered += [_ROOT / path for line in alone for path in re.findall(r"tests/\S+", line)]
    assert sorted(covered) == sorted([*there, *(_ROOT / "tests").glob("test_*.py")])


def test_what_is_pinned_for_a_reason_is_not_moved_by_a_machine() -> None:
    (pip,) = (each for each in _yaml(".github/dependabot.yml")["updates"] if each["package-ecosystem"] == "pip")
    wanted = [
        *_PROJECT["dependencies"],
        *(each for extra in _PROJECT["optional-dependencies"].values() for each in extra),
    ]
    bound = {
        requirement.name
        for requirement in map(Requirement, wanted)
        if any(each.operator in ("==", "<", "<=", "~=") for each in requirement.specifier)
    }
    assert {each["dependency-name"] for each in pip["ignore"]} == bound


@pytest.mark.parametrize(
    "form", sorted((_ROOT / ".github" / "ISSUE_TEMPLATE").glob("[!c]*.yml")), ids=lambda path: path.stem
)
def test_forms_of_issues_are_forms(form: Path) -> None:
    """As the forge wants them: a name, a description, fields of known types with ids of their own and labels."""
    said = yaml.safe_load(form.read_text(encoding="utf-8"))
    assert {"name", "description", "body"} <= set(said)
    assert {each["type"] for each in said["body"]} <= {"textarea", "input", "dropdown", "checkboxes", "markdown"}
    ids = [each["id"] for each in said["body"]]
    assert len(set(ids)) == len(ids)
    for each in said["body"]:  # a comma in YAML's short form would begin another key
        assert {"label"} <= set(each["attributes"]) <= {"label", "description", "render", "options"}


def test_ci_tests_every_python_that_is_promised() -> None:
    matrix = _yaml(".github/workflows/ci.yml")["jobs"]["test"]["strategy"]["matrix"]
    promised = {each.rpartition(" ")[2] for each in _PROJECT["classifiers"] if each.startswith("Programming Language")}
    assert set(matrix["python"]) == promised - {"3"}
    assert all(version in SpecifierSet(_PROJECT["requires-python"]) for version in matrix["python"])
    assert sorted(matrix["part"]) == sorted(each["part"] for each in matrix["include"])
