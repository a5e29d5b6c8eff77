"""Fixtures of the storage tests: every test runs on both formats unless it says otherwise."""

import itertools
from pathlib import Path

import pytest

_numbers = itertools.count()


@pytest.fixture(params=["zarr", "parquet"])
def format(request) -> str:
    return request.param


@pytest.fixture(params=["local", "memory"])
def store(request, tmp_path) -> str:
    """A fresh store on a disk, and one in memory."""
    return str(tmp_path / "store") if request.param == "local" else f"memory://store-{next(_numbers)}"


def files_below(folder: str | Path) -> dict[str, bytes]:
    """Every file by name, but for the hidden leftovers of killed writers."""
    root = Path(folder)
    paths = (path for path in root.rglob("*") if path.is_file() and not path.name.startswith("."))
    return {str(path.relative_to(root)): path.read_bytes() for path in paths}


@pytest.fixture
def snapshot():
    return files_below
