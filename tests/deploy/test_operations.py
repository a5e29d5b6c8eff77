"""docs/operations.md: what it tells people to type exists."""

import re
import shlex
from pathlib import Path

import pytest
import typer.main

from flows.command.app import app

from . import programs

_ROOT = Path(__file__).parents[2]
_TEXT = (_ROOT / "docs" / "operations.md").read_text()
_BLOCKS = re.findall(r"^ {4}(\S.*)$", _TEXT, flags=re.MULTILINE)
_INLINE = re.findall(r"`([^`\n]+)`", _TEXT)


def _lines(program: str) -> list[str]:
    """Commands of one program, in blocks and within sentences."""
    found = [part.strip() for line in [*_BLOCKS, *_INLINE] for part in re.split(r"&&|;| #", line)]
    return [line for line in found if re.match(rf"(?:\w+=\S+ )*{program} ", line)]


@pytest.mark.parametrize("line", sorted(set(_lines("pairflow"))))
def test_pairflow_has_the_command(line: str) -> None:
    words = shlex.split(line)
    words = words[words.index("pairflow") + 1 :]
    command = typer.main.get_command(app).commands[words[0]]
    known = {option for each in command.params for option in each.opts}
    assert {word for word in words if word.startswith("--")} <= known


def test_commands_were_found() -> None:
    assert len(_lines("pairflow")) > 15
    assert {words.split()[1] for words in _lines("docker")} == {"build", "compose", "buildx", "pull"}


def test_files_that_are_named_are_there() -> None:
    paths = re.findall(r"(?:deploy|benchmarks|flows|tests)/[\w./-]*\w", _TEXT)
    assert len(paths) > 8
    made = {"deploy/.env"}
    missing = [each for each in paths if each not in made and not (_ROOT / each).exists() and "$name" not in each]
    assert [each for each in missing if each != "deploy/kubernetes/secrets"] == []
    for target in re.findall(r"\]\((\w+\.md)\)", _TEXT):
        assert (_ROOT / "docs" / target).is_file()


def test_variables_that_are_named_are_read() -> None:
    named = set(re.findall(r"\b(?:PAIRFLOW|PREFECT|MLFLOW|PG)_?[A-Z_]*[A-Z]\b", _TEXT))
    of_tests = {"PAIRFLOW_FUZZ_EXAMPLES", "PAIRFLOW_CHAOS_STEPS", "PAIRFLOW_CHAOS_SEED"}
    of_tests |= {f"PAIRFLOW_CONTAINERS_{each}" for each in ("BASE", "DIR", "PULL")}
    not_of_a_process = {"PREFECT_AUTH", "PAIRFLOW_IMAGE"} | of_tests  # the first two are compose's own
    assert {"PAIRFLOW_HOME", "PGPASSWORD", "PAIRFLOW_DATABASE_URL"} <= named
    assert programs.unknown_variables(named - not_of_a_process) == []
