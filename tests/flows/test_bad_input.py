"""Whatever is wrong with a command line is said in a message, at once, and leaves nothing behind."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from .conftest import Cli


def _tokens(path: Path, array: np.ndarray) -> list[object]:
    np.save(path, array)
    return ["--dataset", "tokens", "--path", path]


@pytest.mark.parametrize(
    ("arguments", "says", "code"),
    [
        (["--dataset", "digits", "--shard-size", "0"], "--shard-size", 2),
        (["--dataset", "nosuch"], "nosuch", 2),
        (["--dataset", "digits", "--num-steps", "0"], "--num-steps", 2),
        (["--dataset", "digits", "--temperature", "0"], "temperature", 2),
        (["--dataset", "digits", "--holdout", "1.5"], "holdout", 2),
        (["--dataset", "digits", "--vocab-size", "7"], "tokens", 2),
        (["--dataset", "tokens", "--path", "/nosuch/file.npy", "--vocab-size", "5"], "/nosuch/file.npy", 1),
        (["--dataset", "digits", "--format", "csv"], "--format", 2),
        (["--dataset", "digits", "--workers", "0"], "--workers", 2),
        (["--dataset", "digits", "--store", "/proc/nosuch"], "/proc/nosuch", 1),
        (["--dataset", "digits", "--store", "nosuchscheme://here"], "nosuchscheme", 1),
    ],
)
def test_option(bare_cli: Cli, tmp_path: Path, arguments: list[str], says: str, code: int) -> None:
    store = tmp_path / "store"
    done = bare_cli("pair", *arguments, PAIRFLOW_STORE=str(store))
    assert done.code == code, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert not done.stdout
    assert not store.exists()


@pytest.mark.parametrize(
    ("array", "vocab_size", "says"),
    [
        (np.full((20, 4), 5, np.uint8), 5, "5"),
        (np.zeros((20, 4)), 5, "integers"),
        (np.zeros(20, np.uint8), 5, "[M, D]"),
        (np.zeros((0, 4), np.uint8), 5, "empty"),
        (np.zeros((1, 4), np.uint8), 5, "row"),
    ],
    ids=["token outside the vocabulary", "floats", "one axis", "empty", "too small to split"],
)
def test_own_array(bare_cli: Cli, tmp_path: Path, array: np.ndarray, vocab_size: int, says: str) -> None:
    data = _tokens(tmp_path / "rows.npy", array)
    store = tmp_path / "store"
    done = bare_cli("pair", *data, "--vocab-size", vocab_size, "--store", store)
    assert done.code == 1, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert not store.exists()


def test_corrupt_file(bare_cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "rows.npy"
    path.write_bytes(b"\x93NUMPY\x01\x00not an array")
    done = bare_cli("pair", "--dataset", "tokens", "--path", path, "--vocab-size", 5, "--store", tmp_path / "store")
    assert done.code == 1
    assert str(path) in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["verify", "inspect"])
def test_no_pairs_there(bare_cli: Cli, tmp_path: Path, command: str) -> None:
    done = bare_cli(command, tmp_path / "nothing.zarr")
    assert done.code == 1
    assert "nothing.zarr" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("assignment", "says"),
    [
        ("training.num_steps", "GROUP.FIELD=VALUE"),
        ("training.nosuch=1", "nosuch"),
        ("nosuch.field=1", "nosuch.field"),
        ("training.num_steps=-1", "num_steps"),
        ("training.num_steps=many", "num_steps"),
        ("model.hidden_size=7", "hidden_size"),
    ],
)
def test_override(bare_cli: Cli, assignment: str, says: str) -> None:
    done = bare_cli("pipeline", "--dataset", "digits", "--set", assignment)
    assert done.code == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("variable", "value"),
    [("RAY_ADDRESS", "auto"), ("PAIRFLOW_NUM_WORKERS", "none"), ("PAIRFLOW_HOME", "/proc/nosuch")],
)
def test_setting(bare_cli: Cli, variable: str, value: str) -> None:
    done = bare_cli("pair", "--dataset", "digits", **{variable: value})
    assert done.code == 2
    assert variable in done.stderr
    assert "Traceback" not in done.stderr


def test_prefect_that_is_not_there(bare_environment: dict[str, str], tmp_path: Path) -> None:
    """As of a shell that kept the exports of a service which was ended since."""
    command = [sys.executable, "-m", "flows.command.app", "pair", "--dataset", "nci", "--max-rows", "200"]
    variables = bare_environment | {"PREFECT_API_URL": "http://127.0.0.1:9/api", "PAIRFLOW_HOME": str(tmp_path)}
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 1
    assert "error: Prefect at http://127.0.0.1:9/api does not answer" in done.stderr
    assert "unset PREFECT_API_URL" in done.stderr
    assert "Traceback" not in done.stderr
